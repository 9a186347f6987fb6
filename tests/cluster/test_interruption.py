from __future__ import annotations

import signal

import pytest

from mixdpo_ray.cluster.interruption import Interruption


def test_an_interrupt_that_was_swallowed_is_raised_at_the_next_check() -> None:
    interruption = Interruption()
    checked = []

    def body() -> None:
        with interruption.heard():
            with pytest.raises(KeyboardInterrupt):  # as a callback would
                signal.raise_signal(signal.SIGINT)
            checked.append(True)
            interruption.check()
            checked.append(False)

    with pytest.raises(KeyboardInterrupt):
        body()
    assert checked == [True]


def test_an_interrupt_that_was_swallowed_to_the_end_is_raised_there() -> None:
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt), interruption.heard(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_afterwards_the_handler_is_the_one_that_was_there() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption().heard():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
