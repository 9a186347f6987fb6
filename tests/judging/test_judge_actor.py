"""The actor: what it is asked, it asks once; what stops it is one line; and the key is found nowhere."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import ray

from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.gauges import JUDGE_QUEUE
from mixdpo_ray.errors import EndpointError, WorkersError
from mixdpo_ray.judging.judge_actor import Judge, judging
from mixdpo_ray.judging.reply_store import reply_folder
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from tests.cluster.scraping import wait_for_gauge
from tests.judging.questions import (
    KEY,
    answer_pairs,
    both_orders,
    files_with,
    judge_settings,
    questions,
    true_win_rate,
    truth,
    win_rate,
)

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_what_an_actor_asks_is_the_truth_and_is_paid_once_while_its_key_is_found_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(KEY)
    folder, pairs = reply_folder(f"{tmp_path}/out", "judge"), answer_pairs(50)
    faults = Faults(too_many=0.05, retry_after="0.1", broken=0.05, cut=0.05, quoted_key=True)
    with serving(JudgeServer(truth, faults)) as server:
        settings = judge_settings(server, key_file=f"{tmp_path}/key", prices={"input": 2, "output": 10})
        with judging(settings, folder) as judge:
            replies = judge.ask(both_orders(pairs))
            again = judge.ask(both_orders(pairs))
            spent = judge.progress.spent
            server.faults = Faults(status=401, quoted_key=True)
            with pytest.raises(EndpointError) as error:
                judge.ask(questions(3))
        with judging(settings, folder) as judge:
            assert judge.ask(both_orders(pairs)) == replies
            assert judge.progress.spent.calls == 0
    assert win_rate(replies) == pytest.approx(true_win_rate(pairs))
    assert again == replies
    assert server.keys == {f"Bearer {KEY}"}
    assert spent.calls == sum(server.asked.values()) - len(questions(3))
    assert "of Bearer (key); name a key that it takes" in str(error.value)
    assert "\n" not in str(error.value)
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err + repr(error.value)
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert files_with(KEY, [tmp_path / "out", session]) == []


def ask_a_dying_judge(judge: Judge) -> None:
    with pytest.raises(WorkersError):
        judge.ask(questions(3))


def test_a_second_job_waits_for_the_first_and_a_dead_actor_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = reply_folder(str(tmp_path), "judge")
    with (
        serving(JudgeServer(truth, Faults(slow=1.0, slow_seconds=30))) as server,
        judging(judge_settings(server), folder) as judge,
    ):
        with exclusive(folder):
            waits = threading.Thread(target=ask_a_dying_judge, args=(judge,))
            waits.start()
            waits.join(1.0)
            assert not server.begun
        while not server.begun:
            waits.join(0.05)
        wait_for_gauge({"model": "judge"}, JUDGE_QUEUE[0], len(questions(3)))
        assert "judge: waiting for another job, which asks judge" in capsys.readouterr().err
        ray.kill(judge._actor)
        waits.join(30)
        assert not waits.is_alive()
        with pytest.raises(WorkersError, match=r"^the process that asks the judge died \(killed, or out of memory\)"):
            judge.ask(questions(3))


def test_a_key_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with judging(judge_settings(JudgeServer(truth), key_variable="NO_SUCH_KEY"), f"{tmp_path}/judged") as judge:
        for _ in range(2):
            with pytest.raises(EndpointError) as error:
                judge.ask(questions(1))
            assert str(error.value).startswith("key_variable NO_SUCH_KEY is not set on ")
            assert "\n" not in str(error.value)
