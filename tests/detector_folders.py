"""Small random detectors of every family, in the folders that their authors publish."""

from __future__ import annotations

import string
from pathlib import Path

import torch

FAMILIES = ("grounding-dino", "mm-grounding-dino", "owlv2", "owlvit", "omdet-turbo")
OWL_TOKENS = 32  # 16 in published models, of words instead of letters
SIDE = 64


def write_detector(folder: Path, family: str, *, seed: int = 0) -> Path:
    """Write config, weights, image processor and tokenizer of a random detector."""
    torch.manual_seed(seed)
    build = {"omdet-turbo": _omdet, "owlv2": _owl, "owlvit": _owl}.get(family, _grounding_dino)
    model, processor = build(family)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _bert_tokenizer():
    """Letters as word pieces, with the ids that Grounding DINO's code knows of full stops."""
    from transformers import BertTokenizer

    vocab = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    vocab |= {".": 1012, "?": 1029, "-": 1011, ",": 1010}
    for place, letter in enumerate(string.ascii_lowercase + string.digits):
        vocab |= {letter: 200 + place, f"##{letter}": 300 + place}
    taken = set(vocab.values())
    vocab |= {f"[unused{i}]": i for i in range(1030) if i not in taken}
    return BertTokenizer(vocab=dict(sorted(vocab.items(), key=lambda item: item[1])))


def _clip_tokenizer(length: int):
    """A byte for each token; the end of the text has the highest id, as CLIP's pooling needs."""
    from transformers import CLIPTokenizer

    letters = string.ascii_lowercase + string.digits + string.punctuation
    tokens = ["!", *(c for c in letters if c != "!"), *(f"{c}</w>" for c in letters)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: place for place, token in enumerate(tokens)},
        merges=[],
        pad_token="!",
        model_max_length=length,
    )


def _swin(**sizes):
    from transformers import SwinConfig

    return SwinConfig(
        **{
            "image_size": SIDE,
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "window_size": 2,
            "out_indices": [2, 3, 4],
            **sizes,
        }
    )


def _grounding_dino(family: str):
    import transformers

    prefix = "MMGroundingDino" if family.startswith("mm") else "GroundingDino"
    config = getattr(transformers, f"{prefix}Config")(
        backbone_config=_swin(),
        text_config=transformers.BertConfig(
            vocab_size=1030,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        d_model=64,  # two channels for each of the 32 groups of its norms
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        num_feature_levels=4,
        max_text_len=64,
    )
    model = getattr(transformers, f"{prefix}ForObjectDetection")(config)
    if prefix == "GroundingDino":  # its random logits would be so large that their sigmoid is 1
        torch.nn.init.constant_(model.model.decoder.layer_norm.weight, 0.1)
    images = transformers.GroundingDinoImageProcessor(
        size={"shortest_edge": 48, "longest_edge": SIDE}
    )
    return model, transformers.GroundingDinoProcessor(images, _bert_tokenizer())


def _owl(family: str):
    import transformers

    prefix = {"owlv2": "Owlv2", "owlvit": "OwlViT"}[family]
    tokenizer = _clip_tokenizer(OWL_TOKENS)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config = getattr(transformers, f"{prefix}Config")(
        text_config={
            **sizes,
            "num_attention_heads": 2,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": OWL_TOKENS,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**sizes, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 16},
        projection_dim=16,
    )
    model = getattr(transformers, f"{prefix}ForObjectDetection")(config)
    images = getattr(transformers, f"{prefix}ImageProcessor")(size={"height": SIDE, "width": SIDE})
    return model, getattr(transformers, f"{prefix}Processor")(images, tokenizer)


def _omdet(family: str):
    import transformers

    tokenizer = _clip_tokenizer(77)
    config = transformers.OmDetTurboConfig(
        text_config=transformers.CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            projection_dim=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        ),
        backbone_config=_swin(out_indices=[2, 3, 4]),
        image_size=SIDE,
        use_timm_backbone=False,
        apply_layernorm_after_vision_backbone=False,
        text_projection_in_dim=16,
        text_projection_out_dim=16,
        class_embed_dim=16,
        task_encoder_hidden_dim=16,
        num_queries=20,
        encoder_in_channels=[16, 32, 64],
        encoder_hidden_dim=32,
        encoder_attention_heads=2,
        encoder_dim_feedforward=32,
        vision_features_channels=[32, 32, 32],
        decoder_hidden_dim=32,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=32,
    )
    model = transformers.OmDetTurboForObjectDetection(config)
    images = transformers.DetrImageProcessor(size={"height": SIDE, "width": SIDE}, do_pad=False)
    return model, transformers.OmDetTurboProcessor(images, tokenizer)
