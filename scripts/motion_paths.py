"""Write the camera paths of motion blur into the package: `python scripts/motion_paths.py`. They are data from then on."""

from __future__ import annotations

import safetensors.torch
import torch

from leader_nb.operators.motion import COUNT, MEMORY, PATHS, SEED, random_path


def main() -> None:
    paths = torch.stack([random_path(number) for number in range(1, COUNT + 1)]).float()
    about = {"recipe": "leader_nb.operators.motion.random_path", "seed": str(SEED), "memory": str(MEMORY)}
    about["units"] = "pixels of a 256 pixel image, (down, across), equal instants of an exposure"
    PATHS.write_bytes(safetensors.torch.save({"paths": paths.contiguous()}, metadata=about))
    print(f"{PATHS.name}: {tuple(paths.shape)}, {PATHS.stat().st_size} bytes")


if __name__ == "__main__":
    main()
