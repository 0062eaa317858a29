"""Figures of papers on views of objects, to stand beside ours: on other data, in Inception's features.

Only what secondary sources confirm is called confirmed; the other rows are as one remembers the papers' tables, and
have not been compared with the print. SRT and DFM stand without figures: none could be read.
"""

CONFIRMED: dict[str, dict[str, dict[str, float]]] = {
    "SRN cars": {
        "3DiM": {"PSNR": 21.01, "FID": 8.99},
        "Concat-UNet": {"PSNR": 17.21, "FID": 21.54},
    },
    "SRN chairs": {"3DiM": {"FID": 6.57}},
}
"""One view in, all others of the object out."""
UNCONFIRMED: dict[str, dict[str, dict[str, float]]] = {
    "SRN cars": {
        "SRN": {"PSNR": 22.25, "SSIM": 0.88, "FID": 41.21},
        "pixelNeRF": {"PSNR": 23.17, "SSIM": 0.89, "FID": 59.24},
        "VisionNeRF": {"PSNR": 22.88, "SSIM": 0.90, "FID": 21.31},
        "LFN": {"PSNR": 22.42, "SSIM": 0.89},
        "3DiM": {"SSIM": 0.57},
        "SRT": {},
    },
    "SRN chairs": {
        "SRN": {"PSNR": 22.89, "SSIM": 0.89, "FID": 26.51},
        "pixelNeRF": {"PSNR": 23.72, "SSIM": 0.90, "FID": 38.49},
        "VisionNeRF": {"PSNR": 24.48, "SSIM": 0.92, "FID": 10.05},
        "3DiM": {"PSNR": 17.05, "SSIM": 0.53},
        "SRT": {},
    },
    "CO3D teddybear": {
        "HoloFusion": {"FID": 81.93, "KID": 0.072},
        "ViewsetDiffusion": {"FID": 201.71},
        "ViewDiff": {"FID": 49.39, "KID": 0.036},
        "DFM": {},
    },
    "CO3D hydrant": {
        "HoloFusion": {"FID": 61.19, "KID": 0.042},
        "ViewsetDiffusion": {"FID": 138.45},
        "ViewDiff": {"FID": 46.45, "KID": 0.033},
    },
    "CO3D donut": {
        "HoloFusion": {"FID": 105.97, "KID": 0.091},
        "ViewsetDiffusion": {"FID": 199.14},
        "ViewDiff": {"FID": 68.86, "KID": 0.054},
    },
    "CO3D apple": {
        "HoloFusion": {"FID": 62.19, "KID": 0.056},
        "ViewsetDiffusion": {"FID": 183.67},
        "ViewDiff": {"FID": 56.85, "KID": 0.043},
    },
}
NOTE = (
    "published by Watson et al. (ICLR 2023) and Hollein et al. (CVPR 2024), on other data and in other features: "
    "compare orders, not numbers; the rows called unconfirmed were not compared with the print"
)


def published_views() -> dict[str, object]:
    """All rows by data set, method and figure, marked as published, as JSON values."""
    return {"note": NOTE, "confirmed": CONFIRMED, "unconfirmed": UNCONFIRMED}
