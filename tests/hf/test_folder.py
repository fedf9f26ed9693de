"""What a model's files say beside its weights."""

import gguf
import pytest
from banyan_hf_worker import folder

pytestmark = pytest.mark.both_lines


def write(path, **sampling):
    """A GGUF file without tensors, with keys of all kinds around those of sampling."""
    w = gguf.GGUFWriter(path, "llama")
    w.add_token_list([f"word{i}" for i in range(300)])
    w.add_token_scores([0.5 * i for i in range(300)])
    w.add_array("general.languages", ["en", "de"])
    w.add_add_bos_token(False)
    for name, (kind, value) in sampling.items():
        getattr(w, f"add_{kind}")(f"general.sampling.{name}", value)
    w.add_name("a name")
    w.add_context_length(512)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    return path


def test_a_gguf_file_s_sampling_is_read_as_the_native_engine_reads_it(tmp_path):
    """As tests/unit/test_gguf_config.c has it: what is no number, or none that sampling takes, is as if it were not there."""
    path = write(tmp_path / "a.gguf", temp=("float32", 0.5), top_k=("uint32", 20), penalty_repeat=("float32", 0.0), min_p=("string", "much"))
    assert folder.sampling_defaults(path) == {
        "temperature": 0.5, "top_k": 20, "top_p": 1, "min_p": 0, "repetition_penalty": 1, "is_given": True}
    assert folder.sampling_defaults(write(tmp_path / "b.gguf")) == {}


def test_its_numbers_are_those_that_the_package_gguf_finds(tmp_path):
    path = write(tmp_path / "a.gguf", temp=("float64", 0.7), top_k=("int8", -3), top_p=("float32", 0.9), min_p=("uint64", 1))
    found = gguf.GGUFReader(path).fields.items()
    numbers = {key: field.contents() for key, field in found if field.types[0] not in (gguf.GGUFValueType.STRING, gguf.GGUFValueType.ARRAY)}
    assert dict(folder.gguf_numbers(path)) == {k: v for k, v in numbers.items() if not k.startswith("GGUF.")}


def test_a_gguf_file_that_is_cut_or_damaged_is_refused(tmp_path):
    path = write(tmp_path / "a.gguf", temp=("float64", 0.7), top_k=("int8", -3))
    whole = path.read_bytes()
    many = whole[:16] + b"\xff" * 8 + whole[24:]  # so many keys, and later so long a key, as no file has
    for damaged in (whole[:30], whole[:60], many, whole[:24] + b"\xff" * 8 + whole[32:], b""):
        path.write_bytes(damaged)
        with pytest.raises(folder.LoadError, match="a.gguf is not a whole GGUF file"):
            folder.sampling_defaults(path)
