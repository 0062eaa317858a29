"""From sentences to objects: each is dreamt, judged by whether its sentence is found among all, and exported.

python examples/05_text_to_3d.py "a red chair" "a white lamp" --out out/dreams
"""

import argparse
import json
from pathlib import Path

from nfldm3d import Scene, export_mesh
from nfldm3d.evaluation.dreams import MatcherJudge, measure_dreams
from nfldm3d.guidance import load_prior
from nfldm3d.pipelines.dream import DreamOptions, dream, save_sides, save_turntable


def main() -> None:
    """Writes a folder for each object, and prints how often its sentence was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--prior", default="objects", help="weights that come with nfldm3d, a run, or a folder")
    parser.add_argument("--retriever", default="objects", help="weights of the judge")
    parser.add_argument("--steps", type=int, default=DreamOptions().steps)
    parser.add_argument("--size", type=int, default=DreamOptions().size)
    parser.add_argument("--detail", type=int, default=DreamOptions().detail)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("out/dreams"))
    arguments = parser.parse_args()
    prior, made = load_prior(arguments.prior), dict[str, Scene]()
    coarse = min(arguments.size, DreamOptions().coarse_size)
    options = DreamOptions(steps=arguments.steps, size=arguments.size, coarse_size=coarse, detail=arguments.detail)
    for prompt in dict.fromkeys(arguments.prompts):
        made[prompt] = scene = dream(prompt, prior, options)
        folder = arguments.out / prompt.replace(" ", "_")
        scene.save(folder / "scene.nfld")
        (folder / "dream.json").write_text(json.dumps({"prompt": prompt}), encoding="utf-8")  # for evaluate dreams
        save_sides(scene, folder / "preview.png")
        save_turntable(scene, folder / "turntable.mp4", frames=arguments.frames)
        export_mesh(scene, folder / "scene.glb")
    if len(made) > 1:
        judges = {"retriever": MatcherJudge.load(arguments.retriever)}
        dreams = {name: lambda scene=scene: scene for name, scene in made.items()}
        print(json.dumps(measure_dreams(list(made), dreams, judges), indent=1))


if __name__ == "__main__":
    main()
