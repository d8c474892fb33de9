"""Optional packages: one cached flag each, and one error that names the extra to install."""

from __future__ import annotations

from lightning_utilities.core.imports import RequirementCache

# name of the extra in pyproject.toml -> the packages that make it usable
EXTRAS: dict[str, dict[str, RequirementCache]] = {
    "vision": {
        "torchvision": RequirementCache("torchvision>=0.21"),
        "scikit-learn": RequirementCache("scikit-learn>=1.4"),
    },
    "recsys": {
        "faiss-cpu": RequirementCache("faiss-cpu>=1.9"),
        "pandas": RequirementCache("pandas>=2.1"),
        "pyarrow": RequirementCache("pyarrow>=15"),
        "safetensors": RequirementCache("safetensors>=0.4.3"),
    },
    "llm": {
        "transformers": RequirementCache("transformers>=4.48"),
        "peft": RequirementCache("peft>=0.14"),
        "datasets": RequirementCache("datasets>=3.0"),
        "faiss-cpu": RequirementCache("faiss-cpu>=1.9"),
        "scikit-learn": RequirementCache("scikit-learn>=1.4"),
        "safetensors": RequirementCache("safetensors>=0.4.3"),
    },
    "speech": {
        "torchaudio": RequirementCache("torchaudio>=2.6"),
        "fla-core": RequirementCache("fla-core>=0.4"),
        "soundfile": RequirementCache("soundfile>=0.12"),
        "safetensors": RequirementCache("safetensors>=0.4.3"),
        "transformers": RequirementCache("transformers>=4.48"),
        "scipy": RequirementCache("scipy>=1.11"),
    },
    "figures": {
        "matplotlib": RequirementCache("matplotlib>=3.8"),
        "tensorboard": RequirementCache("tensorboard>=2.15"),
    },
    "cli": {
        "jsonargparse": RequirementCache("jsonargparse[signatures]>=4.53"),
        "pyyaml": RequirementCache("pyyaml>=6.0"),
    },
    "serve": {
        "litserve": RequirementCache("litserve>=0.2.19"),
        "safetensors": RequirementCache("safetensors>=0.4.3"),
    },
}


def require(extra: str, feature: str, *packages: str) -> None:
    """Raise with the install command unless the packages of an extra are there.

    Args:
        extra: Name of the extra, a key of `EXTRAS`.
        feature: What the user asked for, for the error text.
        packages: The packages of that extra that the feature needs; all of them when left out.

    Raises:
        ModuleNotFoundError: If one is missing or too old; the message names the extra.
    """
    flags = EXTRAS[extra]
    missing = [str(flags[name].requirement) for name in packages or flags if not flags[name]]
    if missing:
        raise ModuleNotFoundError(
            f"{feature} needs {', '.join(missing)}, which the extra '{extra}' brings. "
            f'Run: pip install "lightning-adapt[{extra}]"'
        )
