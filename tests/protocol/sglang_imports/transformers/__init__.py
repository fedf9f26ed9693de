"""Stands where SGLang's bench_serving imports transformers, of which it uses a tokenizer to make prompts of a given
length and to count what came back: the same tokenizer.json, read by the tokenizers library, without torch."""

from pathlib import Path

from tokenizers import Tokenizer


class PreTrainedTokenizerBase:
    def __init__(self, folder):
        self.of, self.init_kwargs = Tokenizer.from_file(str(Path(folder) / "tokenizer.json")), {}
        self.vocab_size = self.of.get_vocab_size(with_added_tokens=False)

    def encode(self, text, add_special_tokens=True):
        return self.of.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids):
        return self.of.decode([int(i) for i in ids], skip_special_tokens=False)

    def get_vocab(self):
        return self.of.get_vocab(with_added_tokens=False)


class PreTrainedTokenizer(PreTrainedTokenizerBase):
    pass


class PreTrainedTokenizerFast(PreTrainedTokenizerBase):
    pass


class AutoTokenizer:
    @staticmethod
    def from_pretrained(folder, **_):
        return PreTrainedTokenizerFast(folder)
