"""Boundaries, truncation, padding, and that every way to lay a batch out scores the same."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from allocsearch.core.errors import InputError
from allocsearch.training.collate import IGNORED, by_length, collate, collate_prompts, encode
from allocsearch.training.examples import Example
from allocsearch.training.likelihood import choice_log_probs, completion_loss

WORDS = ["good", "bad", "film", "the", "was", "very", "Answer:", "yes", "no", "so", "##"]


def _fast(tokenizer, **special):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="module")
def sentencepiece():
    """Like Llama 2's: a word mark before the first word of any text, and a BOS token in front."""
    vocabulary = {token: n for n, token in enumerate(["<s>", "</s>", "<unk>", "▁", *[f"▁{word}" for word in WORDS]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Prepend("▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return _fast(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>")


@pytest.fixture(scope="module")
def merging():
    """A BPE over bytes that merges `:` with a space after it, across the boundary between a prompt and its completion."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: n for n, token in enumerate([*alphabet, "<e>", ":Ġ"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [(":", "Ġ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _fast(tokenizer, eos_token="<e>", pad_token="<e>")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=300, initializer_range=0.5
    )
    return AutoModelForCausalLM.from_config(config).eval()


def _text(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def _logits(model, batch):
    with torch.inference_mode():
        return model(**batch.inputs).logits


def test_a_completion_starts_with_one_word_mark(sentencepiece):
    # Tokenised alone, " yes" would be "▁", "▁yes": a token that no training text has there.
    assert len(sentencepiece(" yes", add_special_tokens=False)["input_ids"]) == 2
    (encoded,) = encode([Example("the film Answer:", ("yes", "no"), 0)], sentencepiece, max_tokens=32)
    assert _text(sentencepiece, encoded.prompt) == ["<s>", "▁the", "▁film", "▁Answer:"]
    assert [_text(sentencepiece, completion) for completion in encoded.completions] == [["▁yes"], ["▁no"]]
    assert encoded.has_single_tokens


def test_a_merge_across_the_boundary_moves_the_cut_for_all_choices(merging):
    (encoded,) = encode([Example("A:", ("y", "n"), 1)], merging, max_tokens=32)
    assert _text(merging, encoded.prompt) == ["A"]
    assert [_text(merging, completion) for completion in encoded.completions] == [[":Ġ", "y"], [":Ġ", "n"]]
    (encoded,) = encode([Example("A:", ("\ny", "n"), 1)], merging, max_tokens=32)
    assert [merging.decode(encoded.prompt + completion) for completion in encoded.completions] == ["A:\ny", "A: n"]


def test_a_text_answer_ends_with_the_end_of_sequence(sentencepiece):
    (encoded,) = encode([Example("the film", (), "was good")], sentencepiece, max_tokens=32)
    assert [_text(sentencepiece, completion) for completion in encoded.completions] == [["▁was", "▁good", "</s>"]]


def test_truncation_cuts_the_prompts_left_after_its_first_special_token(sentencepiece):
    prompt = "very " * 20 + "good Answer:"
    (encoded,) = encode([Example(prompt, ("yes", "so so so"), 0)], sentencepiece, max_tokens=8)
    assert _text(sentencepiece, encoded.prompt) == ["<s>", "▁very", "▁very", "▁good", "▁Answer:"]
    assert encoded.num_tokens == 8
    (long,) = encode([Example(prompt, (), "so " * 50)], sentencepiece, max_tokens=8)
    assert long.num_tokens == 8
    assert _text(sentencepiece, long.prompt) == ["<s>", "▁Answer:"]
    with pytest.raises(InputError, match="`max_tokens` must have room for a choice and its prompt, but got 3 and a choice of 3 tokens"):
        encode([Example(prompt, ("yes", "so so so"), 0)], sentencepiece, max_tokens=3)


def test_choices_that_a_tokenizer_cannot_tell_apart_are_refused(sentencepiece):
    with pytest.raises(InputError, match="choices must differ in tokens"):
        encode([Example("the film", ("unknown", "unheard"), 0)], sentencepiece, max_tokens=8)


def test_encoding_is_silent_and_the_same_in_chunks(sentencepiece, capfd, monkeypatch):
    examples = [Example(f"the film was {'very ' * n}", ("good", "bad"), n % 2) for n in range(7)]
    sentencepiece.model_max_length = 4
    whole = encode(examples, sentencepiece, max_tokens=32)
    monkeypatch.setattr("allocsearch.training.collate._CHUNK", 2)
    assert encode(examples, sentencepiece, max_tokens=32) == whole
    assert capfd.readouterr() == ("", "")


def test_one_row_per_example_where_choices_are_one_token(sentencepiece):
    examples = [Example("the very good film Answer:", ("yes", "no"), 1), Example("film", ("good", "bad", "so"), 2)]
    batch = collate(encode(examples, sentencepiece, max_tokens=32), pad_id=1)
    assert batch.input_ids.shape == (2, 6)
    assert batch.input_ids[1].tolist() == [1, 1, 1, 1, 0, 6]
    assert batch.attention_mask[1].tolist() == [0, 0, 0, 0, 1, 1]
    assert batch.position_ids[1].tolist() == [0, 0, 0, 0, 0, 1]
    assert batch.logits_to_keep == 1
    ids = {word: sentencepiece.convert_tokens_to_ids(f"▁{word}") for word in WORDS}
    assert batch.candidate_ids.tolist() == [[ids["yes"], ids["no"], IGNORED], [ids["good"], ids["bad"], ids["so"]]]
    assert batch.target_ids.tolist() == [[ids["no"]], [ids["so"]]]
    assert batch.gold.tolist() == [1, 2]


def test_one_row_per_choice_otherwise(sentencepiece):
    batch = collate(
        encode([Example("film", ("good", "so so"), 0), Example("film", ("bad", "no"), 1)], sentencepiece, max_tokens=32), pad_id=1
    )
    assert batch.candidate_ids is None
    assert (batch.example_of_row.tolist(), batch.choice_of_row.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1])
    assert batch.logits_to_keep == 2
    assert (batch.target_ids != IGNORED).sum(dim=1).tolist() == [1, 2, 1, 1]
    gold = collate(encode([Example("film", ("good", "so so"), 1)], sentencepiece, max_tokens=32), pad_id=1, gold_only=True)
    assert gold.input_ids.shape[0] == 1
    assert gold.target_ids.shape[1] == 2


def test_both_layouts_give_the_same_probabilities(sentencepiece, model):
    single = encode(
        [Example("the very good film Answer:", ("yes", "no"), 1), Example("film", ("good", "bad", "so"), 2)], sentencepiece, max_tokens=32
    )
    fast = collate(single, pad_id=1)
    # A batch with one longer example takes the other layout for all of them.
    mixed = collate([*single, *encode([Example("film was", ("so so", "no"), 0)], sentencepiece, max_tokens=32)], pad_id=1)
    assert fast.candidate_ids is not None
    assert mixed.candidate_ids is None
    quick = choice_log_probs(fast, _logits(model, fast))
    slow = choice_log_probs(mixed, _logits(model, mixed))[:2]
    torch.testing.assert_close(quick, slow, atol=1e-5, rtol=1e-5)
    assert quick[0, 2] == -torch.inf
    torch.testing.assert_close(quick.exp().sum(dim=1), torch.ones(2))


def test_probabilities_are_those_of_unpadded_rows(sentencepiece, model):
    examples = [Example("the very good film Answer:", ("yes", "no so"), 1), Example("film", ("so so so", "bad"), 0)]
    encoded = encode(examples, sentencepiece, max_tokens=32)
    batch = collate(encoded, pad_id=1)
    found = choice_log_probs(batch, _logits(model, batch))
    for number, example in enumerate(encoded):
        sums = []
        for completion in example.completions:
            ids = torch.tensor([example.prompt + completion])
            with torch.inference_mode():
                log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(dim=-1)
            sums.append(sum(log_probs[len(example.prompt) - 1 + place, token] for place, token in enumerate(completion)))
        torch.testing.assert_close(found[number], torch.stack(sums).log_softmax(dim=0), atol=1e-5, rtol=1e-5)


def test_the_loss_counts_the_right_completions_tokens_only(sentencepiece, model):
    encoded = encode([Example("film was", ("so so", "no"), 0), Example("the film", ("bad", "good"), 1)], sentencepiece, max_tokens=32)
    every, gold = collate(encoded, pad_id=1), collate(encoded, pad_id=1, gold_only=True)
    assert (every.input_ids.shape[0], gold.input_ids.shape[0]) == (4, 2)
    losses = [completion_loss(batch, _logits(model, batch)) for batch in (every, gold)]
    torch.testing.assert_close(*losses)
    with torch.inference_mode():
        ids = torch.tensor([encoded[0].prompt + encoded[0].completions[0]])
        first = model(input_ids=ids, labels=torch.where(torch.arange(ids.shape[1]) < len(encoded[0].prompt), IGNORED, ids)).loss
        ids = torch.tensor([encoded[1].prompt + encoded[1].completions[1]])
        second = model(input_ids=ids, labels=torch.where(torch.arange(ids.shape[1]) < len(encoded[1].prompt), IGNORED, ids)).loss
    torch.testing.assert_close(losses[1], (2 * first + second) / 3)


def test_prompts_alone_are_padded_for_generation(sentencepiece):
    encoded = encode([Example("the very good film", (), "so"), Example("film", (), "so")], sentencepiece, max_tokens=32)
    inputs = collate_prompts(encoded, pad_id=1)
    assert inputs["input_ids"].tolist()[1] == [1, 1, 1, 0, 6]
    assert inputs["attention_mask"].tolist()[1] == [0, 0, 0, 1, 1]


def test_batches_by_length_hold_every_example_once(sentencepiece):
    encoded = encode([Example("film " * (n * 7 % 5 + 1), ("good", "bad"), 0) for n in range(11)], sentencepiece, max_tokens=32)
    found = by_length(encoded, 4)
    assert sorted(index for batch in found for index in batch) == list(range(11))
    lengths = [encoded[index].num_tokens for batch in found for index in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_moves_whole(sentencepiece):
    batch = collate(encode([Example("film", ("good", "so so"), 0)], sentencepiece, max_tokens=32), pad_id=1).to("meta")
    assert batch.input_ids.device.type == batch.gold.device.type == "meta"
    assert batch.candidate_ids is None


@pytest.mark.slow
def test_the_real_model_reads_reviews_better_than_chance(smollm2):
    from allocsearch.core.task import TaskSource
    from allocsearch.models import load_base
    from allocsearch.training.tasks import load_task

    model, tokenizer = load_base(smollm2)
    encoded = encode(load_task(TaskSource(name="sentence-polarity")).search[:96], tokenizer, max_tokens=256)
    right = 0
    for indices in by_length(encoded, 32):
        batch = collate([encoded[index] for index in indices], pad_id=tokenizer.pad_token_id)
        assert batch.candidate_ids is not None  # " positive" and " negative" are one token each
        right += int((choice_log_probs(batch, _logits(model, batch)).argmax(dim=1) == batch.gold).sum())
    assert right / 96 > 0.62  # 0.74 on 256 rows; a coin gives this once in a hundred
