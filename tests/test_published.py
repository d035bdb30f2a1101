"""The published networks: names, shapes and counts of spec 7.1-7.3, and numbers against a plain reading of it.

The plain reading below is written from the description of the networks, on the tensors of a state dict by their names, in
elementary operations. diffusers' UNet2DModel, an independent implementation, is a second witness.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from laws import close, normal, same
from leader_nb import DDNM, leader, parse_task, restore
from leader_nb.buffers import PeakMemory
from leader_nb.errors import InputError
from leader_nb.networks.published import PUBLISHED, ADMNet, DDPMConfig, DDPMNet, published_prior, skeleton
from leader_nb.networks.published.adm import FFHQ, ADMConfig
from leader_nb.networks.published.checkpoints import fill, mismatches, read_checkpoint
from leader_nb.networks.published.layers import waves
from leader_nb.networks.published.models import PublishedNet, as_prior
from leader_nb.schedule import Schedule

TINY_DDPM = DDPMConfig(width=32, multipliers=(1, 2, 2), blocks=2, attention=(1,), size=None)
TINY_ADM = ADMConfig(width=32, multipliers=(1, 2, 2), blocks=2, attention=(1, 2), head=16)
ONE_BLOCK = replace(TINY_ADM, blocks=1, attention=(2,), head=32)
TIMES = torch.tensor([0, 37, 999])
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


def random_net(config: DDPMConfig | ADMConfig) -> PublishedNet:
    """A network in float64 with random weights everywhere."""
    net = DDPMNet(config) if isinstance(config, DDPMConfig) else ADMNet(config)
    net = net.double().requires_grad_(False).eval()
    for i, (name, p) in enumerate(net.named_parameters()):
        fan = p[0].numel() if p.ndim > 1 else 4
        p.copy_(normal(*p.shape, seed=i) / fan**0.5 + (p.ndim == 1 and "weight" in name))
    return net


# --- names, shapes and counts -------------------------------------------------------------------------------------


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def ddpm_block(name: str, cin: int, cout: int) -> Shapes:
    shapes = layer(f"{name}.norm1", cin) | layer(f"{name}.conv1", cout, cin, 3, 3) | layer(f"{name}.temb_proj", cout, 512)
    shapes |= layer(f"{name}.norm2", cout) | layer(f"{name}.conv2", cout, cout, 3, 3)
    return shapes | (layer(f"{name}.nin_shortcut", cout, cin, 1, 1) if cin != cout else {})


def ddpm_attention(name: str) -> Shapes:
    shapes = layer(f"{name}.norm", 512)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= layer(f"{name}.{part}", 512, 512, 1, 1)
    return shapes


def celebahq_shapes() -> Shapes:
    """Spec 7.1, level by level: resolutions 256, 128, 64, 32, 16, 8."""
    shapes = layer("temb.dense.0", 512, 128) | layer("temb.dense.1", 512, 512) | layer("conv_in", 128, 3, 3, 3)
    widths = (128, 128, 256, 256, 512, 512)
    for i, (before, width) in enumerate(zip((128, *widths), widths, strict=False)):
        shapes |= ddpm_block(f"down.{i}.block.0", before, width) | ddpm_block(f"down.{i}.block.1", width, width)
        shapes |= layer(f"down.{i}.downsample.conv", width, width, 3, 3) if i < 5 else {}
    shapes |= ddpm_block("mid.block_1", 512, 512) | ddpm_attention("mid.attn_1") | ddpm_block("mid.block_2", 512, 512)
    inputs = {5: (1024, 1024, 1024), 4: (1024, 1024, 768), 3: (768, 512, 512), 2: (512, 512, 384)}
    inputs |= {1: (384, 256, 256), 0: (256, 256, 256)}
    for i, widths_in in inputs.items():
        for b, cin in enumerate(widths_in):
            shapes |= ddpm_block(f"up.{i}.block.{b}", cin, widths[i])
        shapes |= layer(f"up.{i}.upsample.conv", widths[i], widths[i], 3, 3) if i > 0 else {}
    for name in ("down.4.attn.0", "down.4.attn.1", "up.4.attn.0", "up.4.attn.1", "up.4.attn.2"):
        shapes |= ddpm_attention(name)
    return shapes | layer("norm_out", 128) | layer("conv_out", 3, 128, 3, 3)


def adm_block(name: str, cin: int, cout: int, emb: int) -> Shapes:
    shapes = layer(f"{name}.in_layers.0", cin) | layer(f"{name}.in_layers.2", cout, cin, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", 2 * cout, emb) | layer(f"{name}.out_layers.0", cout)
    shapes |= layer(f"{name}.out_layers.3", cout, cout, 3, 3)
    return shapes | (layer(f"{name}.skip_connection", cout, cin, 1, 1) if cin != cout else {})


def adm_attention(name: str, width: int) -> Shapes:
    shapes = layer(f"{name}.norm", width) | layer(f"{name}.qkv", 3 * width, width, 1)
    return shapes | layer(f"{name}.proj_out", width, width, 1)


def adm_shapes(inputs: tuple[int, ...], outputs: tuple[tuple[int, int], ...], at: dict[str, set[int]]) -> Shapes:
    """Spec 7.2: widths of the input blocks, (in, out) of the output blocks, which hold attention, and which resample."""
    emb, last = 4 * inputs[0], inputs[-1]
    shapes = layer("time_embed.0", emb, inputs[0]) | layer("time_embed.2", emb, emb)
    shapes |= layer("input_blocks.0.0", inputs[0], 3, 3, 3)
    for i in range(1, len(inputs)):
        shapes |= adm_block(f"input_blocks.{i}.0", inputs[i - 1], inputs[i], emb)
        shapes |= adm_attention(f"input_blocks.{i}.1", inputs[i]) if i in at["input"] else {}
    shapes |= adm_block("middle_block.0", last, last, emb) | adm_attention("middle_block.1", last)
    shapes |= adm_block("middle_block.2", last, last, emb)
    for i, (cin, cout) in enumerate(outputs):
        shapes |= adm_block(f"output_blocks.{i}.0", cin, cout, emb)
        shapes |= adm_attention(f"output_blocks.{i}.1", cout) if i in at["output"] else {}
        up = f"output_blocks.{i}.{2 if i in at['output'] else 1}"
        shapes |= adm_block(up, cout, cout, emb) if i in at["up"] else {}
    return shapes | layer("out.0", inputs[0]) | layer("out.2", 6, inputs[0], 3, 3)


def imagenet_shapes() -> Shapes:
    inputs = (256,) * 7 + (512,) * 6 + (1024,) * 5  # a downsampling block, at 3, 6, 9, 12 and 15, keeps its width
    outputs = ((2048, 1024),) * 5 + ((1536, 1024), (1536, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 512))
    outputs += ((768, 512), (768, 256)) + ((512, 256),) * 5
    at = {"input": {10, 11, 13, 14, 16, 17}, "output": set(range(9)), "up": {2, 5, 8, 11, 14}}
    return adm_shapes(inputs, outputs, at)


def ffhq_shapes() -> Shapes:
    inputs = (128, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512)  # one block a level, then a downsampling one
    outputs = ((1024, 512), (1024, 512), (1024, 512), (768, 512), (768, 256), (512, 256), (512, 256), (384, 256))
    outputs += ((384, 128), (256, 128), (256, 128), (256, 128))
    return adm_shapes(inputs, outputs, {"input": {9}, "output": {2, 3}, "up": {1, 3, 5, 7, 9}})


EXPECTED = {
    "celebahq-256": (celebahq_shapes(), 113_673_219, 450),
    "imagenet-256": (imagenet_shapes(), 552_814_086, 566),
    "ffhq-256": (ffhq_shapes(), 93_563_910, 362),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_names_shapes_and_counts(name: str) -> None:
    """Every tensor of the published checkpoint and no other; on the meta device, so that nothing is allocated."""
    shapes, parameters, tensors = EXPECTED[name]
    state = skeleton(name).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == shapes
    assert sum(value.numel() for value in state.values()) == parameters == PUBLISHED[name].parameters
    assert len(state) == tensors and all(value.is_meta for value in state.values())


def held(network: PublishedNet, side: int, gradient: bool) -> float:
    """Bytes for each pixel that a call holds at once beside its weights, in float32."""
    network.requires_grad_(False)
    x = torch.empty(1, 3, side, side, device="meta", requires_grad=gradient)
    with PeakMemory() as memory, torch.set_grad_enabled(gradient):
        out = network(x, torch.zeros(1, dtype=torch.long, device="meta"))
        if gradient:
            torch.autograd.grad(out, x, torch.empty_like(out))
    return memory.peak / side**2


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_memory_of_a_call_is_what_the_table_says(name: str) -> None:
    """At 256 x 256 for the one that takes nothing else; the others grow with the pixels, so that 64 x 64 will do."""
    network = skeleton(name)
    side = network.config.size or 64
    assert held(network, side, False) == pytest.approx(PUBLISHED[name].call, rel=0.001)
    if name == "ffhq-256":
        assert held(network, side, True) == pytest.approx(PUBLISHED[name].kept, rel=0.01)


def test_block_counts_of_imagenet() -> None:
    net = skeleton("imagenet-256")
    assert isinstance(net, ADMNet) and len(net.input_blocks) == len(net.output_blocks) == 18
    assert skeleton("celebahq-256").config.size == 256 and net.config.size is None and net.config.stride == 32


# --- numbers: a plain reading of the specification ----------------------------------------------------------------


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def group_norm(s: State, name: str, x: Tensor, eps: float) -> Tensor:
    """32 groups of neighbouring channels, each brought to mean 0 and variance 1."""
    groups = x.reshape(len(x), 32, -1)
    centred = groups - groups.mean(2, keepdim=True)
    unit = (centred / (centred.square().mean(2, keepdim=True) + eps).sqrt()).reshape(x.shape)
    return unit * s[f"{name}.weight"].view(1, -1, 1, 1) + s[f"{name}.bias"].view(1, -1, 1, 1)


def conv(s: State, name: str, x: Tensor, stride: int = 1, padding: int | None = None) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s[f"{name}.bias"], stride, weight.shape[-1] // 2 if padding is None else padding)


def linear(s: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("oi,bi->bo", s[f"{name}.weight"], x) + s[f"{name}.bias"]


def pixels(s: State, name: str, x: Tensor) -> Tensor:
    """A 1x1 convolution, (B, C, N), whose weight may have one or two trailing ones."""
    return torch.einsum("oi,bin->bon", s[f"{name}.weight"].flatten(1), x) + s[f"{name}.bias"][:, None]


def frequencies(half: int, denominator: int) -> Tensor:
    return 10000.0 ** (-torch.arange(half, dtype=torch.float64) / denominator)


def nearest_twice(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def mean_of_four(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def plain_ddpm(s: State, config: DDPMConfig, x: Tensor, t: Tensor) -> Tensor:
    """Spec 7.1."""
    levels, half = len(config.multipliers), config.width // 2
    angle = t.double()[:, None] * frequencies(half, half - 1)
    temb = linear(s, "temb.dense.0", torch.cat([angle.sin(), angle.cos()], 1))
    temb = silu(linear(s, "temb.dense.1", silu(temb)))

    def block(name: str, h: Tensor) -> Tensor:
        inner = conv(s, f"{name}.conv1", silu(group_norm(s, f"{name}.norm1", h, 1e-6)))
        inner = inner + linear(s, f"{name}.temb_proj", temb)[:, :, None, None]
        inner = conv(s, f"{name}.conv2", silu(group_norm(s, f"{name}.norm2", inner, 1e-6)))
        return inner + (conv(s, f"{name}.nin_shortcut", h) if f"{name}.nin_shortcut.weight" in s else h)

    def attention(name: str, h: Tensor) -> Tensor:
        n = group_norm(s, f"{name}.norm", h, 1e-6).flatten(2)
        q, k, v = (pixels(s, f"{name}.{part}", n) for part in "qkv")
        share = torch.softmax(torch.einsum("bcn,bcm->bnm", q, k) * h.shape[1] ** -0.5, dim=2)  # over the keys
        return h + pixels(s, f"{name}.proj_out", torch.einsum("bnm,bcm->bcn", share, v)).view(h.shape)

    h = conv(s, "conv_in", x)
    skips = [h]
    for i in range(levels):
        for b in range(config.blocks):
            h = block(f"down.{i}.block.{b}", h)
            h = attention(f"down.{i}.attn.{b}", h) if i in config.attention else h
            skips.append(h)
        if i < levels - 1:
            padded = torch.zeros(*h.shape[:2], h.shape[2] + 1, h.shape[3] + 1, dtype=h.dtype)
            padded[..., :-1, :-1] = h
            h = conv(s, f"down.{i}.downsample.conv", padded, stride=2, padding=0)
            skips.append(h)
    h = block("mid.block_2", attention("mid.attn_1", block("mid.block_1", h)))
    for i in reversed(range(levels)):
        for b in range(config.blocks + 1):
            h = block(f"up.{i}.block.{b}", torch.cat([h, skips.pop()], 1))
            h = attention(f"up.{i}.attn.{b}", h) if i in config.attention else h
        h = conv(s, f"up.{i}.upsample.conv", nearest_twice(h)) if i > 0 else h
    assert not skips
    return conv(s, "conv_out", silu(group_norm(s, "norm_out", h, 1e-6)))


def plain_adm(s: State, config: ADMConfig, x: Tensor, t: Tensor) -> Tensor:
    """Spec 7.2. What a block is made of is read off the names; which way it resamples, off the order of the levels."""
    levels, half = len(config.multipliers), config.width // 2
    angle = t.double()[:, None] * frequencies(half, half)
    emb = silu(linear(s, "time_embed.0", torch.cat([angle.cos(), angle.sin()], 1)))
    emb = silu(linear(s, "time_embed.2", emb))

    def block(name: str, h: Tensor, resample=lambda h: h) -> Tensor:
        inner = resample(silu(group_norm(s, f"{name}.in_layers.0", h, 1e-5)))
        inner = conv(s, f"{name}.in_layers.2", inner)
        film = linear(s, f"{name}.emb_layers.1", emb)[:, :, None, None]
        scale, shift = film[:, : inner.shape[1]], film[:, inner.shape[1] :]
        inner = group_norm(s, f"{name}.out_layers.0", inner, 1e-5) * (1 + scale) + shift
        inner, h = conv(s, f"{name}.out_layers.3", silu(inner)), resample(h)
        return inner + (conv(s, f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in s else h)

    def attention(name: str, h: Tensor) -> Tensor:
        if f"{name}.qkv.weight" not in s:
            return h
        tokens, heads = pixels(s, f"{name}.qkv", group_norm(s, f"{name}.norm", h, 1e-5).flatten(2)), []
        for part in tokens.split(3 * config.head, dim=1):  # each head's rows lie together: its q, its k, its v
            q, k, v = part.split(config.head, dim=1)
            score = torch.einsum("bcn,bcm->bnm", q * config.head**-0.25, k * config.head**-0.25)
            heads.append(torch.einsum("bnm,bcm->bcn", torch.softmax(score, dim=2), v))
        return h + pixels(s, f"{name}.proj_out", torch.cat(heads, 1)).view(h.shape)

    h = conv(s, "input_blocks.0.0", x)
    skips, i = [h], 1
    for level in range(levels):
        for down in [False] * config.blocks + [True] * (level < levels - 1):
            h = block(f"input_blocks.{i}.0", h, mean_of_four) if down else block(f"input_blocks.{i}.0", h)
            h = attention(f"input_blocks.{i}.1", h)
            skips.append(h)
            i += 1
    h = block("middle_block.2", attention("middle_block.1", block("middle_block.0", h)))
    i = 0
    for level in reversed(range(levels)):
        for b in range(config.blocks + 1):
            h = block(f"output_blocks.{i}.0", torch.cat([h, skips.pop()], 1))
            h = attention(f"output_blocks.{i}.1", h)
            if level > 0 and b == config.blocks:
                h = block(f"output_blocks.{i}.{2 if level in config.attention else 1}", h, nearest_twice)
            i += 1
    assert not skips
    return conv(s, "out.2", silu(group_norm(s, "out.0", h, 1e-5)))


@pytest.mark.parametrize("config", [TINY_DDPM, replace(TINY_DDPM, blocks=1, attention=(0, 2)), TINY_ADM, ONE_BLOCK])
def test_numbers_are_those_of_the_specification(config: DDPMConfig | ADMConfig) -> None:
    """To 1e-10 in float64, on an image that is not square, at a different time for each image."""
    net, x = random_net(config), normal(3, 3, 8, 12)
    plain = plain_ddpm if isinstance(config, DDPMConfig) else plain_adm
    ours = net(x, TIMES)
    assert ours.shape == (3, 3 if isinstance(config, DDPMConfig) else 6, 8, 12) and ours.std() > 0.1
    close(ours, plain(net.state_dict(), config, x, TIMES), "plain reading", 1e-10)


def test_the_waves() -> None:
    """[sin, cos] of t 10000^(-i/63) for 128 channels (7.1); t 10000^(-i/128) for 256 (7.2). Bits as in float32 training."""
    for width, shift, last in ((128, 1, 10000.0**-1), (256, 0, 10000.0 ** -(127 / 128))):
        sin, cos = waves(TIMES, width, shift, torch.float64)
        angle = TIMES.double()[:, None] * frequencies(width // 2, width // 2 - shift)
        close(torch.cat([sin, cos]), torch.cat([angle.sin(), angle.cos()]), "waves", 1e-12)
        assert sin[1, -1].item() == pytest.approx(37 * last, rel=1e-4)
        single, _ = waves(TIMES, width, shift, torch.float32)
        half, _ = waves(TIMES, width, shift, torch.float16)
        assert single.dtype == torch.float32 and (half == single.half()).all(), "never computed in half precision"


# --- numbers: diffusers as a second witness -----------------------------------------------------------------------


def to_diffusers(state: State, config: DDPMConfig | ADMConfig) -> State:
    """Our names and shapes -> those of UNet2DModel: 1x1 convolutions of attention become matrices, packed heads are sorted."""
    return ddpm_to_diffusers(state, config) if isinstance(config, DDPMConfig) else adm_to_diffusers(state, config)


def rename(state: State, pairs: dict[str, str], before: str, after: str) -> State:
    out = {}
    for old, new in pairs.items():
        for end in ("weight", "bias"):
            if f"{before}.{old}.{end}" in state:
                out[f"{after}.{new}.{end}"] = state[f"{before}.{old}.{end}"]
    return out


DDPM_BLOCK = {"norm1": "norm1", "conv1": "conv1", "temb_proj": "time_emb_proj", "norm2": "norm2", "conv2": "conv2"}
DDPM_BLOCK |= {"nin_shortcut": "conv_shortcut"}
DDPM_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
ADM_BLOCK = {"in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj", "out_layers.0": "norm2"}
ADM_BLOCK |= {"out_layers.3": "conv2", "skip_connection": "conv_shortcut"}


def ddpm_to_diffusers(s: State, config: DDPMConfig) -> State:
    pairs = {"temb.dense.0": "time_embedding.linear_1", "temb.dense.1": "time_embedding.linear_2", "conv_in": "conv_in"}
    pairs |= {"norm_out": "conv_norm_out", "conv_out": "conv_out"}
    out = {f"{new}.{end}": s[f"{old}.{end}"] for old, new in pairs.items() for end in ("weight", "bias")}
    places, last = [("mid.block_1", "mid_block.resnets.0"), ("mid.block_2", "mid_block.resnets.1")], len(config.multipliers) - 1
    attentions = [("mid.attn_1", "mid_block.attentions.0")]
    for i in range(last + 1):
        for way, j in (("down", i), ("up", last - i)):
            for b in range(config.blocks + (way == "up")):
                places.append((f"{way}.{i}.block.{b}", f"{way}_blocks.{j}.resnets.{b}"))
                attentions.append((f"{way}.{i}.attn.{b}", f"{way}_blocks.{j}.attentions.{b}"))
        out |= rename(s, {"conv": "conv"}, f"down.{i}.downsample", f"down_blocks.{i}.downsamplers.0")
        out |= rename(s, {"conv": "conv"}, f"up.{i}.upsample", f"up_blocks.{last - i}.upsamplers.0")
    for old, new in places:
        out |= rename(s, DDPM_BLOCK, old, new)
    for old, new in attentions:
        out |= {k: v.flatten(1) if v.ndim == 4 else v for k, v in rename(s, DDPM_ATTENTION, old, new).items()}
    return out


def adm_to_diffusers(s: State, config: ADMConfig) -> State:
    pairs = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
    pairs |= {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
    out = {f"{new}.{end}": s[f"{old}.{end}"] for old, new in pairs.items() for end in ("weight", "bias")}
    places, last = (
        {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"},
        len(config.multipliers) - 1,
    )
    attentions, i, o = {"middle_block.1": "mid_block.attentions.0"}, 1, 0
    for level in range(last + 1):
        for b in range(config.blocks):
            places[f"input_blocks.{i}.0"] = f"down_blocks.{level}.resnets.{b}"
            attentions[f"input_blocks.{i}.1"] = f"down_blocks.{level}.attentions.{b}"
            i += 1
        if level < last:
            places[f"input_blocks.{i}.0"] = f"down_blocks.{level}.downsamplers.0"
            i += 1
    for j, level in enumerate(reversed(range(last + 1))):
        for b in range(config.blocks + 1):
            places[f"output_blocks.{o}.0"] = f"up_blocks.{j}.resnets.{b}"
            attentions[f"output_blocks.{o}.1"] = f"up_blocks.{j}.attentions.{b}"
            if b == config.blocks and level > 0:
                tail = 2 if level in config.attention else 1
                places[f"output_blocks.{o}.{tail}"] = f"up_blocks.{j}.upsamplers.0"
            o += 1
    for old, new in places.items():
        out |= rename(s, ADM_BLOCK, old, new)
    for old, new in attentions.items():
        if f"{old}.qkv.weight" in s:
            out |= rename(s, {"norm": "group_norm", "proj_out": "to_out.0"}, old, new) | unpacked(s, old, new, config.head)
    return {k: v.flatten(1) if v.ndim == 3 else v for k, v in out.items()}


def unpacked(s: State, old: str, new: str, head: int) -> State:
    """Rows (head, 3, channel of the head) -> q, k and v, each (head, channel)."""
    out = {}
    for end in ("weight", "bias"):
        rows = s[f"{old}.qkv.{end}"]
        parts = rows.view(-1, 3, head, *rows.shape[1:]).unbind(1)
        out |= {f"{new}.to_{p}.{end}": part.flatten(0, 1) for p, part in zip("qkv", parts, strict=True)}
    return out


def diffusers_net(config: DDPMConfig | ADMConfig, state: State):
    from diffusers import UNet2DModel

    ddpm, levels = isinstance(config, DDPMConfig), range(len(config.multipliers))
    plain, attentive = ("", "Attn") if ddpm else ("Resnet{}sample", "Attn")
    names = {"Down": [], "Up": []}
    for way, kinds in names.items():
        kinds += [f"Attn{way}Block2D" if i in config.attention else f"{plain.format(way)}{way * ddpm}Block2D" for i in levels]
    net = UNet2DModel(
        in_channels=config.channels,
        out_channels=config.channels * (1 if ddpm else 2),
        flip_sin_to_cos=not ddpm,
        freq_shift=int(ddpm),
        down_block_types=tuple(names["Down"]),
        up_block_types=tuple(reversed(names["Up"])),
        block_out_channels=tuple(config.width * m for m in config.multipliers),
        layers_per_block=config.blocks,
        downsample_padding=0 if ddpm else 1,
        downsample_type="conv" if ddpm else "resnet",
        upsample_type="conv" if ddpm else "resnet",
        attention_head_dim=None if ddpm else config.head,
        attn_norm_num_groups=32,
        norm_eps=1e-6 if ddpm else 1e-5,
        resnet_time_scale_shift="default" if ddpm else "scale_shift",
    ).double()
    net.load_state_dict(to_diffusers(state, config))  # strict: every name and shape
    return net.eval()


@pytest.mark.parametrize("config", [TINY_DDPM, TINY_ADM, ONE_BLOCK], ids=["celebahq", "imagenet", "ffhq"])
def test_numbers_are_those_of_diffusers(config: DDPMConfig | ADMConfig) -> None:
    """To rounding at times whose waves float32 holds well (diffusers always embeds in float32), to 1e-4 at all."""
    pytest.importorskip("diffusers")
    net, x = random_net(config), normal(2, 3, 8, 16)
    theirs = diffusers_net(config, net.state_dict())
    for times, tolerance in (([0, 1], 1e-6), ([500, 999], 1e-3)):
        t = torch.tensor(times)
        with torch.no_grad():
            close(net(x, t), theirs(x, t).sample, "diffusers", tolerance)


# --- as priors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TINY_DDPM, TINY_ADM], ids=["ddpm", "adm"])
def test_an_image_does_not_depend_on_its_batch(config: DDPMConfig | ADMConfig) -> None:
    """To the last bit in float64."""
    net, x, t = random_net(config), normal(5, 3, 8, 8), torch.tensor([0, 10, 300, 700, 999])
    together = net(x, t)
    for i in range(5):
        same(net(x[i : i + 1], t[i : i + 1])[0], together[i], "alone")
    same(net(x[1:3], t[1:3]), together[1:3], "two of five")


def test_six_channels_are_noise_and_variance() -> None:
    net, x = random_net(TINY_ADM), normal(3, 3, 8, 8)
    belief = as_prior(net, "adm")(x, TIMES)
    out = net(x, TIMES)
    same(belief.eps, out[:, :3], "eps")
    assert belief.variance is not None
    same(belief.variance, out[:, 3:], "variance")
    assert as_prior(random_net(TINY_DDPM), "ddpm")(x, TIMES).variance is None


def test_a_network_in_single_precision_takes_double_images() -> None:
    net = random_net(TINY_ADM).float()
    belief = as_prior(net, "adm")(normal(1, 3, 8, 8), torch.tensor([300]))
    assert belief.x0.dtype == torch.float64 and belief.schedule == Schedule()


def test_the_vjp_is_that_of_the_network() -> None:
    """v^T d x0 / d x_t against a finite difference."""
    prior, x, t = as_prior(random_net(TINY_DDPM), "ddpm"), normal(1, 3, 4, 4), torch.tensor([300])
    u, v = normal(1, 3, 4, 4, seed=1), normal(1, 3, 4, 4, seed=2)
    slope = (prior(x + 1e-6 * u, t).x0 - prior(x - 1e-6 * u, t).x0) / 2e-6
    close((prior(x, t).vjp(v) * u).sum(), (slope * v).sum(), "vjp", 1e-6)


def test_sides_and_channels_are_checked() -> None:
    celeba = as_prior(random_net(replace(TINY_DDPM, size=16)), "celebahq-256")
    adm, t = as_prior(random_net(TINY_ADM), "adm"), torch.tensor([5])
    assert (celeba.minimum, adm.minimum) == (16, 4)
    with pytest.raises(InputError, match="it is 32 x 16 px; the prior 'celebahq-256' takes 16 x 16 and nothing else"):
        celeba(normal(1, 3, 32, 16), t)
    with pytest.raises(InputError, match="it is 8 x 10 px; the prior 'adm' needs multiples of 4"):
        adm(normal(1, 3, 8, 10), t)
    with pytest.raises(InputError, match="it has 1 channels; the prior 'adm' takes 3"):
        adm(normal(1, 1, 8, 8), t)


def test_a_published_network_restores() -> None:
    """The whole loop, with LEADer, on a random network: finite, and the data are kept."""
    problem = parse_task("inpaint70@0").measure(normal(2, 3, 8, 8).clamp(-1, 1))
    result = restore(problem, as_prior(random_net(TINY_ADM), "adm"), DDNM(), grid=5, **leader())
    assert torch.isfinite(result.image).all()
    close(problem.operator(result.image), problem.y, "data")


# --- checkpoints --------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> DDPMNet:
    """`celebahq-256` made tiny, with a random network to go with it."""
    config = replace(TINY_DDPM, size=16)
    entry = replace(PUBLISHED["celebahq-256"], build=lambda: DDPMNet(config))
    monkeypatch.setitem(PUBLISHED, "celebahq-256", entry)
    net = random_net(config)
    assert isinstance(net, DDPMNet)
    return net.float()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".safetensors"])
def test_a_checkpoint_comes_back_to_the_bit(small: DDPMNet, tmp_path: Path, suffix: str) -> None:
    path, x = tmp_path / f"weights{suffix}", normal(2, 3, 16, 16).float()
    save_file(small.state_dict(), path) if suffix == ".safetensors" else torch.save(small.state_dict(), path)
    belief = published_prior("celebahq-256", path)(x, torch.tensor([3, 800]))
    same(belief.eps, small(x, torch.tensor([3, 800])), "round trip")
    assert belief.eps.dtype == torch.float32 and belief.prior.name == "celebahq-256" and belief.prior.minimum == 16


def test_half_precision_checkpoints_and_networks(small: DDPMNet, tmp_path: Path) -> None:
    torch.save({k: v.half() for k, v in small.state_dict().items()}, tmp_path / "half.pt")
    x, t = normal(1, 3, 16, 16).float(), torch.tensor([100])
    full = published_prior("celebahq-256", tmp_path / "half.pt")(x, t).eps
    close(full.double(), small(x, t).double(), "half weights", 0.05)
    rough = published_prior("celebahq-256", tmp_path / "half.pt", dtype=torch.bfloat16)(x, t).eps
    assert rough.dtype == torch.float32 and (rough - full).abs().max() < 0.5


def test_another_network_is_refused(small: DDPMNet, tmp_path: Path) -> None:
    """The first names that do not fit, in the network's order, and how many more there are."""
    state = small.state_dict()
    wrong = {f"module.{k}": v for k, v in state.items()}
    torch.save(wrong, tmp_path / "module.pt")
    with pytest.raises(InputError, match=r"does not fit: temb\.dense\.0\.weight is missing; .* and \d+ more$") as error:
        published_prior("celebahq-256", tmp_path / "module.pt")
    assert "\n" not in str(error.value)
    torch.save(state | {"conv_in.weight": state["conv_in.weight"][:, :1]}, tmp_path / "grey.pt")
    with pytest.raises(InputError, match=r"conv_in\.weight is \(32, 1, 3, 3\), not \(32, 3, 3, 3\)$"):
        published_prior("celebahq-256", tmp_path / "grey.pt")
    torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "extra.pt")
    with pytest.raises(InputError, match=r"does not fit: extra is unknown$"):
        published_prior("celebahq-256", tmp_path / "extra.pt")
    assert len(mismatches(skeleton("ffhq-256"), state)) > 300


def test_values_that_are_not_finite_are_refused(small: DDPMNet) -> None:
    with torch.device("meta"):
        empty = DDPMNet(small.config)
    state = small.state_dict()
    with pytest.raises(InputError, match=r"not finite in torch.float32, first in conv_in.bias"):
        fill(empty, state | {"conv_in.bias": torch.full((32,), torch.nan)}, torch.float32, "this")
    with pytest.raises(InputError, match=r"not finite in torch\.float16"):
        fill(empty, state | {"conv_in.bias": torch.full((32,), 1e6)}, torch.float16, "this")


class Code:
    def __reduce__(self):
        return print, ("this must never be printed",)


def test_files_that_are_no_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {
        "code.pt": (pickle.dumps({"a": Code()}, protocol=2), "asks to run code: refused"),
        "page.ckpt": (b"\n<!DOCTYPE html><html>Access denied</html>", "is a web page"),
        "noise.ckpt": (bytes(range(256)) * 9, "is no complete checkpoint"),
        "empty.pt": (b"", "is no complete checkpoint"),
        "short.safetensors": (b"\x10\0\0\0\0\0\0\0{}", "is no complete checkpoint"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
    torch.save({"code": Code()}, tmp_path / "zip.pt")
    with pytest.raises(InputError, match="asks to run code: refused"):
        read_checkpoint(tmp_path / "zip.pt")
    assert "never" not in capsys.readouterr().out


def test_checkpoints_of_another_kind(small: DDPMNet, tmp_path: Path) -> None:
    torch.save(small.state_dict(), tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-2000])
    with pytest.raises(InputError, match="is no complete checkpoint"):
        read_checkpoint(tmp_path / "cut.pt")
    torch.save({"state_dict": small.state_dict(), "step": 3}, tmp_path / "wrapped.pt")
    with pytest.raises(InputError, match="holds state_dict, step rather than named tensors"):
        read_checkpoint(tmp_path / "wrapped.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(InputError, match="holds list rather than named tensors"):
        read_checkpoint(tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"did you mean 'whole\.pt'"):
        read_checkpoint(tmp_path / "whole.p")


def test_names_and_files_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="did you mean 'imagenet-256'"):
        published_prior("imagenet256")
    with pytest.raises(InputError, match=r"ffhq_10m.pt; run leader-nb weights fetch ffhq-256, or put the file there"):
        published_prior("ffhq-256")


def test_ffhq_is_the_smaller_adm() -> None:
    """Spec 7.3: 128 channels, one block a level, attention at resolution 16 only, otherwise as 7.2."""
    assert replace(ADMConfig(), width=128, blocks=1, attention=(4,)) == FFHQ and 256 // 2**4 == 16
