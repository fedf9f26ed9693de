"""From a path to a model in memory: what may be loaded, in which dtype, with rotary tables that no neighbour changes."""

import hashlib
import importlib.util
import os
from pathlib import Path

import torch
import transformers
from transformers.models.auto import modeling_auto

from . import folder as folders
from . import probe
from .folder import LoadError

MIN_VERSION = (4, 53)


def check_versions():
    have = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    if have < MIN_VERSION:
        raise LoadError(
            f"transformers {transformers.__version__} is older than {'.'.join(map(str, MIN_VERSION))}; "
            "run deploy/setup.sh --transformers"
        )


def load(path, *, dtype="auto", trust_remote_code=False, allow_pickle=False, context_length=0, device=torch.device("cpu")):
    """The model in eval mode. LoadError for what cannot be loaded, Refused for what generates no text."""
    check_versions()
    transformers.utils.logging.set_verbosity_error()
    folder, gguf = (str(Path(path).parent), Path(path).name) if str(path).endswith(".gguf") else (str(path), None)
    folders.check(path, trust_remote_code=trust_remote_code, allow_pickle=allow_pickle)
    extra = {"gguf_file": gguf} if gguf else {"use_safetensors": None if allow_pickle else True}
    if device.type != "cpu":
        extra["device_map"] = {"": device}  # straight there: the host needs no room for it
    try:
        config = transformers.AutoConfig.from_pretrained(
            folder, trust_remote_code=trust_remote_code, **({"gguf_file": gguf} if gguf else {})
        )
        probe.refuse_what_is_not_causal(config)  # before its missing head is taken for a broken file
        model, loaded = auto_class(config).from_pretrained(
            folder, config=config, dtype=_dtype(config, dtype, device), trust_remote_code=trust_remote_code,
            output_loading_info=True, **extra
        )
    except (probe.Refused, torch.OutOfMemoryError):
        raise
    except Exception as failure:
        raise LoadError(f"{path}: transformers {transformers.__version__} cannot load it: {_first_line(failure)}") from failure
    _check_loaded(path, loaded)
    model.eval().requires_grad_(False)
    freeze_rope(model, context_length or longest(model.config))
    return model


def auto_class(config):
    """A class that generates text; one that reads images beside it serves its text."""
    look_without_timm()
    for auto in (transformers.AutoModelForCausalLM, transformers.AutoModelForImageTextToText):
        if type(config) in auto._model_mapping.keys():
            return auto
    return transformers.AutoModelForCausalLM  # custom code, or the error that says what it cannot load


def look_without_timm():
    """Some models (Gemma 3n) look through timm, whose absence would refuse their text too: where it is not installed they get no eyes."""
    if importlib.util.find_spec("timm"):
        return
    for kind, name in modeling_auto.MODEL_MAPPING_NAMES.items():
        if name == "TimmWrapperModel":
            config = transformers.CONFIG_MAPPING[kind]
            transformers.AutoModel.register(config, type("NoEyes", (_NoEyes,), {"config_class": config}), exist_ok=True)


class _NoEyes(transformers.PreTrainedModel):
    def __init__(self, config, **kwargs):
        super().__init__(config)
        self.post_init()


def _first_line(failure):
    return f"{type(failure).__name__}: {str(failure).strip().splitlines()[0][:400] if str(failure).strip() else ''}"


def _check_loaded(path, loaded):
    """transformers fills what the files lack with random numbers, and warns."""
    for what, names in (("has no weights for", loaded.get("missing_keys")), ("has weights of another shape for", loaded.get("mismatched_keys"))):
        if names:
            first = sorted(str(n[0] if isinstance(n, tuple) else n) for n in names)[:3]
            raise LoadError(f"{path} {what} {', '.join(first)}{f' and {len(names) - 3} more' if len(names) > 3 else ''}; its config and its files do not belong together")


def _dtype(config, asked, device):
    if asked != "auto":
        return getattr(torch, asked)
    stored = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None) or torch.float32
    stored = getattr(torch, stored) if isinstance(stored, str) else stored
    return torch.float32 if device.type == "cpu" and stored == torch.float16 else stored  # f16 has no fast path on CPUs


def longest(config):
    """Longest sequence that the config allows, in tokens."""
    text = config.get_text_config(decoder=True)
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return 2048


def freeze_rope(model, length):
    """dynamic and longrope choose their factors by the longest position of the batch: a long neighbour would change a
    short request, and stored keys would have the old factors. Chosen once here, for the longest sequence served."""
    try:
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    except ImportError:
        return []
    frozen = []
    for name, module in model.named_modules():
        kinds = getattr(module, "rope_type", None)
        if isinstance(kinds, dict):
            for layer_type, kind in list(kinds.items()):
                if kind in ("dynamic", "longrope"):
                    _freeze(module, ROPE_INIT_FUNCTIONS[kind], length, layer_type)
                    kinds[layer_type] = "default"
                    frozen.append(f"{name}[{layer_type}]")
        elif kinds in ("dynamic", "longrope"):
            _freeze(module, ROPE_INIT_FUNCTIONS[kinds], length, None)
            module.rope_type = "default"
            frozen.append(name)
    return frozen


def _freeze(module, init, length, layer_type):
    prefix = f"{layer_type}_" if layer_type else ""
    device = getattr(module, f"{prefix}inv_freq").device
    extra = {"layer_type": layer_type} if layer_type else {}
    inv_freq, scaling = init(module.config, device, seq_len=length, **extra)
    module.register_buffer(f"{prefix}inv_freq", inv_freq, persistent=False)
    setattr(module, f"{prefix}original_inv_freq", inv_freq)
    setattr(module, f"{prefix}attention_scaling", scaling)


def fingerprint(path):
    """Of the weights: names, sizes and the ends of every file; replicas must agree."""
    digest = hashlib.sha256()
    files = [Path(path)] if Path(path).is_file() else sorted(
        p for p in Path(path).iterdir() if p.suffix in (".safetensors", ".bin", ".gguf")
    )
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size};".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(65536))
            stream.seek(max(0, size - 65536))
            digest.update(stream.read(65536))
    return digest.hexdigest()[:32]


def quiet():
    """transformers' bars and advice do not belong into a server's log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
