"""``nfldm3d assemble``: the networks of all stages as one folder of weights."""

from dataclasses import dataclass
from pathlib import Path

from nfldm3d.files import DataFormatError, check_output
from nfldm3d.written_files import atomic_folder, require_free


@dataclass(frozen=True)
class Assemble:
    """Puts trained networks together to a folder that nfldm3d generate reads, in half precision."""

    out: Path
    """Folder of weights."""
    latents: Path
    """Folder of nfldm3d encode --keep latents that the denoisers were trained on: it tells how large scenes are and
    what maps hold."""
    parts: tuple[str, ...]
    """Run folders of nfldm3d train, folders of weights, or names of those that nfldm3d comes with, which together hold
    scene_autoencoder, latent_autoencoder and denoiser_c, perhaps denoiser_g, denoiser_f, frame_classifier, bev_reader,
    restorer and image_prior; later ones take precedence. With an autodecoder and a denoiser_g of its codes they make
    the GAUDI-style baseline."""

    eight_bits: tuple[str, ...] = ()
    """Networks whose weights are kept in 8 bits with a scale for each output channel, such as denoiser_c: half as large
    as in half precision."""
    overwrite: bool = False
    """Replace what nfldm3d wrote there before and nobody has changed."""

    def run(self) -> None:
        """Reads all weights and writes them."""
        check_output(self.out, folder=True)
        require_free(self.out, overwrite=self.overwrite)
        from nfldm3d.data.encoded_scenes import EncodedScenes, read_header
        from nfldm3d.models.eight_bits import pack_file
        from nfldm3d.models.nfldm.readers import BevReader, FrameClassifier
        from nfldm3d.models.nfldm.trajectories import POSES, measure_path_odds
        from nfldm3d.models.priors.image_denoiser import ImageDenoiser
        from nfldm3d.models.weight_folders import find_weights
        from nfldm3d.models.weights import load_network
        from nfldm3d.pipelines import SceneGenerator
        from nfldm3d.pipelines.generator_files import NETWORKS, OPTIONAL
        from nfldm3d.pipelines.global_generator import NETWORKS as BASELINE, GlobalGenerator
        from nfldm3d.training.denoiser_stage import MEASURED, LatentSetSource, make_schedule

        header = read_header(self.latents)
        beside = {"frame_classifier": FrameClassifier, "bev_reader": BevReader}
        beside |= {"restorer": ImageDenoiser, "image_prior": ImageDenoiser}
        networks = {}
        for part in self.parts:
            folder = find_weights(part)
            for name, network in (NETWORKS | BASELINE | beside).items():
                if (folder / name).is_dir():
                    networks[name] = load_network(network, folder / name)
        wanted = BASELINE if "autodecoder" in networks else NETWORKS
        needless = OPTIONAL if wanted is NETWORKS else ()
        missing = [name for name in wanted if name not in networks and name not in needless]
        if missing:
            where = self.parts[-1] if self.parts else "--parts"
            raise DataFormatError(where, f"no part holds {', '.join(missing)}; add the run folder that does")
        about = {name: header[name] for name in ("box_size", "map_classes", "map_palette") if name in header}
        some = LatentSetSource(EncodedScenes(self.latents)).spread(MEASURED)
        if some.bev is not None:
            paths, classes = some.g[:, -5 * POSES :], len(about["map_classes"])
            odds = measure_path_odds(paths, some.bev, classes)
            about["path_odds"] = [round(value, 3) for value in odds.tolist()]
        extra = {name: networks.pop(name).half() for name in beside if name in networks}
        networks = {name: network.half() for name, network in networks.items() if name in wanted}
        pipeline = GlobalGenerator if wanted is BASELINE else SceneGenerator
        if unknown := sorted(set(self.eight_bits) - {*networks, *extra}):
            held = ", ".join(sorted({*networks, *extra}))
            raise ValueError(f"--eight-bits {unknown[0]} is none of the networks at hand: {held}")
        generator = pipeline(scheduler=make_schedule(), **networks, **about)
        with atomic_folder(self.out) as temporary:
            generator.save_pretrained(temporary)
            for name, network in extra.items():
                network.save_pretrained(temporary / name)
            for name in self.eight_bits:
                pack_file(temporary / name / "diffusion_pytorch_model.safetensors")
