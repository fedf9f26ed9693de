"""What a model's folder must be before it is loaded. Needs neither torch nor transformers, which take seconds to come."""

import importlib.util
import json
import mmap
import struct
from pathlib import Path


class LoadError(RuntimeError):
    """The model cannot be served; the text says why and what to do."""


def check(path, *, trust_remote_code=False, allow_pickle=False):
    """LoadError for a folder whose code or pickles nobody has allowed, or that is no model's. A GGUF file is a matter of loading."""
    if str(path).endswith(".gguf"):
        return
    folder = Path(path)
    if not (folder / "config.json").exists():
        raise LoadError(f"{folder}: there is no config.json; --model-path takes a Hugging Face folder, a GGUF file or a Hub id")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (ValueError, RecursionError) as broken:
        raise LoadError(f"{folder}/config.json is not JSON: {broken}") from None
    if not isinstance(config, dict):
        raise LoadError(f"{folder}/config.json is not an object")
    if config.get("auto_map") and not trust_remote_code and not _is_known(config):
        raise LoadError(
            f"{folder}: the model brings its own Python code (auto_map in config.json); read it, and if you trust it, "
            "add --trust-remote-code"
        )
    _check_weights(folder, allow_pickle)


# What sampling takes: least, most, and what changes nothing. As the native worker reads them (hf_config.c).
_SAMPLING = {"temperature": (0, 1e6, 1), "top_p": (2.0**-126, 1, 1), "top_k": (0, 2**30, 0), "min_p": (0, 1, 0),
             "repetition_penalty": (2.0**-126, 2, 1)}
_GGUF_SAMPLING = {"general.sampling.temp": "temperature", "general.sampling.penalty_repeat": "repetition_penalty",
                  **{f"general.sampling.{name}": name for name in ("top_k", "top_p", "min_p")}}


def sampling_defaults(path):
    """What generation_config.json or a GGUF file recommends, by the fields of messages.SamplingDefaults; {}: nothing."""
    if str(path).endswith(".gguf"):
        config = {_GGUF_SAMPLING[key]: value for key, value in gguf_numbers(path) if key in _GGUF_SAMPLING}
    else:
        config = _generation_config(Path(path) / "generation_config.json")
    said = {k: config[k] for k, (least, most, _) in _SAMPLING.items() if isinstance(config, dict)
            and isinstance(config.get(k), (int, float)) and least <= config[k] <= most}
    if not said:
        return {}
    full = {k: said.get(k, neutral) for k, (_, _, neutral) in _SAMPLING.items()}
    return {**full, "top_k": int(full["top_k"]), "is_given": True}


def _generation_config(file):
    try:
        return json.loads(file.read_text()) if file.exists() else {}
    except (ValueError, RecursionError) as broken:
        raise LoadError(f"{file} is not JSON: {broken}") from None


_GGUF_TYPES = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_GGUF_STRING, _GGUF_ARRAY = 8, 9


def gguf_numbers(path):
    """[(key, number)] of each number among a GGUF file's keys. LoadError: it is cut off or damaged.
    The package gguf takes seconds for it: it reads every word of the vocabulary."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            return list(_numbers_in(text))
    except (struct.error, KeyError, ValueError, OverflowError) as broken:
        raise LoadError(f"{path} is not a whole GGUF file: {broken}") from None


def _numbers_in(text):
    """struct.error where it ends too early: each length is read from within the file."""
    at = 24  # magic, version, number of tensors, number of keys

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, text, at - struct.calcsize(form))[0]

    def skip_strings(n):
        nonlocal at
        for _ in range(n):
            at += 8 + struct.unpack_from("<Q", text, at)[0]

    for _ in range(struct.unpack_from("<Q", text, 16)[0]):
        begin = at
        skip_strings(1)
        key, kind = text[begin + 8 : at].decode(), take("<I")
        if kind == _GGUF_ARRAY:
            kind, n = take("<I"), take("<Q")
            if kind == _GGUF_STRING:
                skip_strings(n)
            else:
                at += n * struct.calcsize(_GGUF_TYPES[kind])
        elif kind == _GGUF_STRING:
            skip_strings(1)
        else:
            yield key, take(_GGUF_TYPES[kind])


def _check_weights(folder, allow_pickle):
    names = [p.name for p in folder.iterdir()]
    if any(n.endswith(".safetensors") for n in names) or allow_pickle:
        return
    if any(n.endswith((".bin", ".pt", ".pth")) for n in names):
        raise LoadError(
            f"{folder}: its weights are pickle files, which can run code when loaded; convert them to safetensors, or "
            "if you trust them, add --allow-pickle"
        )
    raise LoadError(f"{folder}: there are no weights (*.safetensors)")


def _is_known(config):
    """Does transformers have the class itself? Its table of classes is read as a text: an import would bring all of it."""
    found = importlib.util.find_spec("transformers")
    table = Path(found.origin).parent / "models/auto/modeling_auto.py" if found else None
    text = table.read_text() if table and table.exists() else ""
    return any(f'"{name}"' in text for name in config.get("architectures") or [])
