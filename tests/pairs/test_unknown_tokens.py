from types import SimpleNamespace

import pyarrow as pa

from mixdpo_ray.pairs.unknown_tokens import unknown_tokens

TOKENIZER = SimpleNamespace(unk_token_id=9, unk_token="<unk>")


def rows(unknown: int) -> pa.Table:
    """A hundred tokens in two pairs."""
    ids = [9] * unknown + [1] * (100 - unknown)
    cut = {"prompt_ids": [ids[:20], ids[20:40]], "chosen_ids": [ids[40:50], []], "rejected_ids": [ids[50:], []]}
    return pa.table(cut)


def test_words_that_the_tokenizer_does_not_know_are_told_by_their_share() -> None:
    told = unknown_tokens(rows(60), TOKENIZER)
    assert told is not None
    assert told.startswith("60% of the tokens of the first 2 pairs are unknown to the tokenizer (all of them are <unk>")


def test_a_rare_sign_and_a_tokenizer_that_writes_everything_are_no_reason_to_warn() -> None:
    assert unknown_tokens(rows(2), TOKENIZER) is None
    assert unknown_tokens(rows(60), SimpleNamespace(unk_token_id=None)) is None
    assert unknown_tokens(rows(60).slice(0, 0), TOKENIZER) is None
