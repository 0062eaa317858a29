"""What the textures of TORCS's tracks stand for: road, kerb, terrain, tree, or something built.

Textures are told by their names, and the parts of a track by the names that TORCS's track generator gives them. Names
that no rule knows are reported, never guessed: they belong to another version of the data, or to another track.
"""

import re

import numpy as np
from jaxtyping import Bool, Float, UInt8

CLASS_NAMES = ("void", "road", "marking", "kerb", "terrain", "building", "tree", "car")
"""Of bird's-eye maps. A building is whatever was built and is no road: walls, barriers, stands, scenery on wheels."""
VOID, ROAD, MARKING, KERB, TERRAIN, BUILDING, TREE, CAR = range(len(CLASS_NAMES))
LABEL_NAMES = ("sky", *CLASS_NAMES[1:])
"""Of pixels: the same, but where a map has nothing a picture has sky."""
PALETTE = (
    *((0, 0, 0), (110, 110, 115), (240, 240, 240), (200, 120, 200)),
    *((90, 140, 60), (170, 110, 80), (20, 90, 40), (200, 40, 40)),
)
LABEL_PALETTE = ((130, 190, 240), *PALETTE[1:])

LEVEL = 0.5
"""Cosine of the steepest slope of a road or a kerb; steeper pieces of them are walls."""
BRIGHTER, BRIGHTER_BY, BRIGHT = 1.4, 40.0, 130.0
"""White lines are so many times brighter than the median of their own texture, by so many of 255 levels, and so bright;
their surroundings too, since gravel sparkles."""
YELLOW = 80.0
"""Levels by which a yellow line's red and green exceed its blue."""
COLOURLESS = 60
"""Levels between the strongest and the weakest channel of a white line beside grass or sand, at most."""

_GROUND_PART = re.compile(r"TK(MN|LS|RS)|T\d+[LR]B|TERR|EXRD|X(KLS|KRS|\d+[LR][BT])|.*ROAD", re.IGNORECASE)
"""What the track generator calls main track, sides, borders and terrain, and what people call roads."""
_MAIN_PART = re.compile(r"TKMN", re.IGNORECASE)
_BARRIER_PART = re.compile(r"B\d+[LR]T", re.IGNORECASE)


def _names(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_TREES = _names(
    r"all(borg-)?tree|arbor01|rk_tree|treebit|treebui|treeg\d|treel(\d|ine)|treeq|treesc|treetd|tretrnk",
    r"tree_(n\b|apple|bush|maple)|tree\d+(_n|side\d|end)|tree-(border|fir|new|pine|poplar)",
)
_KERBS = _names(r"(tr-|tr)?curb|rmbl|rsa0[12]|rsa_n")
_STRIPS = _names(
    r"(tr-b-)?(asph\w*|road\w*|rroad|asgrass|as)(-to-|-|2)?(gra?s|snow|sand|gravel|dirt)|rssagr|rsgras|rssand|rdgrtran",
    r"rroadgrs|assandr|tr-g-to-asphalt|tr-asphalt-to-g",
)
"""Between road and terrain; they count as terrain but for the line on them."""
_SNOW = _names(r".*snow|ice\b")
"""Nothing stands out from it by brightness."""
_ROADS = _names(
    r"(tr-)?(road|asph)|(tr-)?tarmac-(?!wall)|(cracked|patched)-asphalt|asp_n|as(asph|conc)|rs_n|rsroad|rsdot|stline|tr-b-"
)
_PAVEMENTS = _names(r"(ole-|tr-|as|g)?conc|bordertile|house26parking|house17concrete")
"""Road where they are ground, else something built."""
_TERRAINS = _names(
    r"g?gras|tr-gras|earth|(tr-)?snow|ice\b|rock|cliff|geo-|close-bush|(tr-|g)?sand|(tr-)?gravel|water|treewate|border[-2]",
)
_BUILT = _names(
    r"0[12]\.png|[13]00\.png|64pass|alaubm|alfablk|arb0|arbor|armco|asssem|audi|back-sign|bar\d|barg|barr|blbdbk|bld|block",
    r"blupole|bmw|box|brdg|brick|bridge|brique|btowb|build|bus\.|camp|car0|cars\d|cas[ao]|clkdtm|cmnt|corkscrew|crn[a-f]",
    r"crowd|cwall|dblogo|dekk|dist0|f3base|facade|fenc|ferred|flatspot|fltblk|fnceb|frri|furgone|garage|girder|gs[bdprsu]",
    r"gstnda|gtirewall|h\d\d|house|hus|hytte|improveyou|infomich|isl1|kilo|lamaop|lancia|lave|lgt|light|logo|m40a|magnmar",
    r"mase|mcn|megafuel|metala|mob1|monstart|mur|mycast|obja|opel|pad|pala|pass\d|pdkka|pep1|pit|pol[el]|poutre|ppl[a-c]",
    r"pylon|ra4brig|rail|rax|ref\.|roof|rsa3|ruudskog|rv\d|s46|sbridge|seats|sema|sign|spec|stage|stairs|std|steel|stlight",
    r"stnd|swall|tagtn|tanker|tarmac-wall|tent|texte|texwheel|tileroof|time|tire|tntshd|toil|toitcas|topcrowd|torcs|tow",
    r"tr-(bar|build|house|spec|stone|tirewall|wall)|trave|tree(c\d|fc|rns|s3|uglies|_eva)|trib|trkjum|truck|turn",
    r"wall|wheel|wirewood|xrw|z(brid|pit)|\w{2,5}_?tree(_n)?\.png",  # people and flags, named so for their alpha
)


def is_main_track(part: str) -> bool:
    """Whether a part of a track, by its name, is what is driven on."""
    return _MAIN_PART.match(part) is not None


def classify(part: str, texture: str | None) -> int | None:
    """The class of the level pieces of a part of a track with a texture; None if no rule knows the texture."""
    is_ground = _GROUND_PART.match(part) is not None
    if texture is None or texture == "(null)":
        return BUILDING
    if _TREES.match(texture):
        return BUILDING if _BARRIER_PART.match(part) else TREE
    if _KERBS.match(texture):
        return KERB
    if _PAVEMENTS.match(texture):
        return ROAD if is_ground else BUILDING
    if _STRIPS.match(texture) or _TERRAINS.match(texture):
        return TERRAIN
    if _ROADS.match(texture):
        return ROAD
    return BUILDING if _BUILT.match(texture) else None


def classify_steep(level_class: int) -> int:
    """The class of the steep pieces of what is of a class where it is level: a steep road is a wall."""
    return BUILDING if level_class in (ROAD, KERB) else level_class


def find_markings(texture: str, pixels: UInt8[np.ndarray, "height width channels"]) -> Bool[np.ndarray, "height width"]:
    """Which pixels of the texture of a road, or of a strip beside one, are painted lines."""
    beside_road = _STRIPS.match(texture) is not None
    if _SNOW.match(texture) or not (beside_road or _ROADS.match(texture)):
        return np.zeros(pixels.shape[:2], bool)
    colors = pixels[..., :3].astype(np.float32)
    brightness = colors.mean(-1)
    middle, around = float(np.median(brightness)), _blur(brightness)
    bright = (brightness > BRIGHTER * middle) & (around > max(BRIGHTER * middle, middle + BRIGHTER_BY, BRIGHT))
    if beside_road:
        return bright & (np.ptp(colors, axis=-1) < COLOURLESS)
    return bright | (_blur(colors[..., :2].min(-1) - colors[..., 2]) > YELLOW)


def _blur(pixels: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Means of three by three pixels of a texture, which repeats."""
    return sum(np.roll(pixels, (row - 1, column - 1), (0, 1)) for row, column in np.ndindex(3, 3)) / np.float32(9)
