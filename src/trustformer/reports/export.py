# SPDX-License-Identifier: Apache-2.0
"""A finished run's model as a folder that transformers loads without this package."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from trustformer.data.folder import whole_folder
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.marian import read_json
from trustformer.errors import TrustformerError
from trustformer.experiment.config import Config, DataConfig, load_config
from trustformer.experiment.corpora import folder_languages
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.saved import load_saved
from trustformer.models.families import longest
from trustformer.models.seq2seq import save_model
from trustformer.reports.card import BEAMS, model_card


def export(run: Path, to: Path, client: str | None = None) -> None:
    """Write weights, config, generation config, tokenizer and model card; as a whole or not at all.

    Args:
        run: directory of a finished run.
        to: the folder; must not exist, or be empty.
        client: id of a client whose own model is wanted instead of that of `model/`.

    Raises:
        ConfigError: no finished run, no such client, or a folder that is not empty.
        TrustformerError: the folder cannot be written.
    """
    directory = RunDirectory.existing(run)
    model, tokenizer = load_saved(run, client)
    config, result = load_config(run / "config.toml"), directory.result()
    assert result is not None
    if config.model.task == "translation":
        model.generation_config.num_beams = BEAMS
    mask = tokenizer.mask_token if isinstance(tokenizer, HubTokenizer) else None
    card = model_card(config, result, read_json(run / "environment.json"), client, _languages(config), mask)
    with whole_folder(to, mode=0o755) as folder:
        try:
            save_model(model, folder)
        except SafetensorError as error:
            raise TrustformerError(f"{to} cannot be written: {error}", "mend that, or choose another folder") from None
        tokenizer.save(folder, longest(model))
        (folder / "README.md").write_text(card, "utf-8")
        for weights in folder.glob("*.safetensors"):  # safetensors lets nobody but their owner read them
            weights.chmod((folder / "README.md").stat().st_mode)


def _languages(config: Config) -> tuple[str, ...]:
    """Languages the config or the report of a folder declares; tsv files and lines say nothing of theirs.

    Rows of jsonl and hf may have the keys `source` and `target`: the default languages are no declaration there.
    """
    data, names = config.data, [f"{config.data.side}_language"]
    if stated := folder_languages(config):
        return tuple(stated) if config.model.task == "translation" else (stated[data.side == "target"],)
    if config.clients.folders or data.source in ("tsv", "lines", "folder"):
        return ()
    if config.model.task == "translation":
        names = ["source_language", "target_language"]
    if data.source in ("jsonl", "hf"):
        names = [name for name in names if getattr(data, name) != getattr(DataConfig(), name)]
    return tuple(getattr(data, name) for name in names)
