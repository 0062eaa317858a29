"""What makes a dream three-dimensional (DreamFusion's Figure 6): each way of looking, switched on one after the other.

    python examples/dream_ablations.py prompts.txt --steps 1500

ViewAug: cameras from everywhere, instead of a few steps about the front. ViewDep: prompts say the side. Lighting: light
on the colours. Textureless: light on the bare shape. Each row has the same budget and seeds. Its dreams are judged by
R-Precision in colour and as bare shapes. OUT gets a table, a sheet of shapes and the dreams: they are not dreamt twice;
other steps need another OUT.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from nfldm3d import Scene
from nfldm3d.evaluation.dreams import MatcherJudge, draw_dream, measure_dreams, read_prompts
from nfldm3d.guidance import load_prior
from nfldm3d.pictures import save_contact_sheet
from nfldm3d.pipelines.dream import DreamOptions, EmptyFieldError, ViewRanges, dream

FEW = ViewRanges(azimuth=(-30.0, 30.0), elevation=(0.0, 30.0))


def make_rows(options: DreamOptions) -> dict[str, DreamOptions]:
    """Options by what has been switched on last."""
    base = replace(options, views=FEW, view_prompts="none", shaded_share=0.0, textureless_share=0.0)
    augmented = replace(base, views=options.views)
    dependent = replace(augmented, view_prompts=options.view_prompts)
    lit = replace(dependent, shaded_share=options.shaded_share)
    return {
        "base": base,
        "+ ViewAug": augmented,
        "+ ViewDep": dependent,
        "+ Lighting": lit,
        "+ Textureless": replace(lit, textureless_share=options.textureless_share),
    }


def main() -> None:
    """Prints a table and writes the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--prior", default="objects", help="weights that come with nfldm3d, a run, or a folder")
    parser.add_argument("--retriever", default="objects", help="weights of the judge")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--size", type=int, default=DreamOptions().size)
    parser.add_argument("--detail", type=int, default=DreamOptions().detail)
    parser.add_argument("--out", type=Path, default=Path("out/dream_ablations"))
    arguments = parser.parse_args()
    prior, prompts = load_prior(arguments.prior), read_prompts(arguments.prompts)
    judges = {"retriever": MatcherJudge.load(arguments.retriever)}
    coarse = min(arguments.size, DreamOptions().coarse_size)
    options = DreamOptions(steps=arguments.steps, size=arguments.size, coarse_size=coarse, detail=arguments.detail)
    table, shapes = dict[str, dict[str, object]](), dict[str, torch.Tensor]()
    for name, chosen in make_rows(options).items():
        made: dict[str, Scene] = {}
        for number, prompt in enumerate(prompts):
            path = arguments.out / name.removeprefix("+ ") / f"{number:03d}.nfld"
            try:
                made[prompt] = Scene.load(path) if path.exists() else dream(prompt, prior, chosen)
            except EmptyFieldError as error:  # it counts as not found
                print(f"{name}, {prompt}: {error}")
                continue
            if not path.exists():
                made[prompt].save(path)
        found = measure_dreams(prompts, {key: lambda s=scene: s for key, scene in made.items()}, judges)
        share = len(made) / len(prompts)
        table[name] = {
            kind: round(share * float(str(found.get(f"retriever_{kind}", 0))), 3) for kind in ("color", "shape")
        }
        if made:
            shapes[name] = torch.cat([draw_dream(scene)["shape"][1:2] for scene in made.values()])
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "table.json").write_text(json.dumps(table, indent=1), encoding="utf-8")
    if shapes:
        save_contact_sheet(shapes, arguments.out / "shapes.png")
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
