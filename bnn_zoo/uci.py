"""The UCI regression sets that papers on Bayesian neural networks report: what is in them, and which rows are for what.

The numbers themselves are not carried by the zoo: ``bnn_zoo.downloads`` finds them, and ``bnn_zoo.datasets`` gives them
out by name. Rows keep the order of the published files, on which the splits rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bnn_zoo import downloads

Rows = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class RealSet:
    """What is known of a set before its file is read: sizes, names, number of splits, where it comes from."""

    name: str
    rows: int
    features: tuple[str, ...]
    target: str
    description: str
    source: str
    standard_splits: int = 20
    gap_splits: int = 0
    licence: str = "CC BY 4.0"

    @property
    def file(self) -> str:
        """The file with the data, as ``downloads.find`` knows it."""
        return f"{self.name}/data.txt"


def read(real: RealSet) -> tuple[np.ndarray, np.ndarray]:
    """Give ``x`` of shape (n, d) and ``y`` of shape (n,), in the units of the file.

    The file has the features first and the target next; ``naval`` has a second target after that, which is left out as
    in the papers.

    Raises
    ------
    ZooValueError
        As ``downloads.find`` does.
    """
    table = np.loadtxt(downloads.find(real.file))
    width = len(real.features)
    return table[:, :width], table[:, width]


def standard_split(rows: int, number: int) -> Rows:
    """Give the rows of the ``number``-th standard split, (train, test), nine tenths and one tenth of ``rows``.

    The published splits are those that this rule gives, order included: one generator seeded with 1, and for each split
    a fresh permutation of it. NumPy has promised that ``RandomState`` will always give the same numbers.

    Source: Hernández-Lobato & Adams, Probabilistic Backpropagation, ICML 2015.
    """
    generator = np.random.RandomState(1)
    for _ in range(number + 1):
        order = generator.choice(range(rows), rows, replace=False)
    return order[: round(0.9 * rows)], order[round(0.9 * rows) :]


def gap_split(name: str, number: int) -> Rows:
    """Give the rows of a gap split, (train, test): test is the middle third by the rank of feature ``number``.

    Read from the published files, for ties make the rule ambiguous.

    Source: Foong et al., 'In-Between' Uncertainty in Bayesian Neural Networks, arXiv 1906.11537, 2019.

    Raises
    ------
    ZooValueError
        As ``downloads.find`` does.
    """
    train, test = (
        np.loadtxt(downloads.find(f"{name}/gap/index_{part}_{number}.txt"), dtype=int) for part in ("train", "test")
    )
    return train, test


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# Gap splits only where the hashes of their files are known to us (all but protein, wine and naval, which have some, and
# airfoil, which has splits of neither kind).
SETS = (
    RealSet(
        name="yacht",
        rows=308,
        features=_names(
            "longitudinal position, prismatic coefficient, length-displacement ratio, beam-draught ratio, "
            "length-beam ratio, Froude number"
        ),
        target="residuary resistance",
        description="resistance of a sailing yacht by the shape of its hull and its speed",
        source="UCI: Gerritsma, Onnink & Versluis, Delft Ship Hydromechanics Laboratory 1981",
        gap_splits=6,
    ),
    RealSet(
        name="energy",
        rows=768,
        features=_names(
            "relative compactness, surface area, wall area, roof area, overall height, orientation, glazing area, "
            "glazing area distribution"
        ),
        target="heating load",
        description="heating that a simulated building needs, by its shape and windows",
        source="UCI: Tsanas & Xifara, Energy and Buildings 2012",
        gap_splits=8,
    ),
    RealSet(
        name="concrete",
        rows=1030,
        features=_names(
            "cement, blast furnace slag, fly ash, water, superplasticizer, coarse aggregate, fine aggregate, age"
        ),
        target="compressive strength",
        description="strength of concrete in MPa, by its mixture in kg/m³ and its age in days",
        source="UCI: Yeh, Cement and Concrete Research 1998",
        gap_splits=8,
    ),
    RealSet(
        name="kin8nm",
        rows=8192,
        features=_names("theta1, theta2, theta3, theta4, theta5, theta6, theta7, theta8"),
        target="distance",
        description="distance of a simulated robot arm's hand from a point, by the angles of its eight joints",
        source="Delve: Ghahramani, the kin datasets, University of Toronto 1996",
        gap_splits=8,
        licence="none stated",
    ),
    RealSet(
        name="power-plant",
        rows=9568,
        features=_names("temperature, exhaust vacuum, ambient pressure, relative humidity"),
        target="electrical energy output",
        description="hourly output of a combined cycle power plant in MW, by the weather and its steam turbine",
        source="UCI: Tüfekci, International Journal of Electrical Power & Energy Systems 2014",
        gap_splits=4,
    ),
    RealSet(
        name="protein",
        rows=45730,
        features=_names(
            "total surface area, non-polar exposed area, fraction of residue exposed, "
            "fraction of part of residue exposed, mass weighted exposed area, deviation from standard exposed area, "
            "Euclidean distance, secondary structure penalty, spatial distribution constraints"
        ),
        target="RMSD",
        description="how far a predicted protein structure is from the true one, in ångström, by its surface and shape",
        source="UCI: Rana, Physicochemical Properties of Protein Tertiary Structure, 2013",
        standard_splits=5,
    ),
    RealSet(
        name="wine",
        rows=1599,
        features=_names(
            "fixed acidity, volatile acidity, citric acid, residual sugar, chlorides, free sulfur dioxide, "
            "total sulfur dioxide, density, pH, sulphates, alcohol"
        ),
        target="quality",
        description="what tasters thought of a red vinho verde, 0 to 10, by its chemistry",
        source="UCI: Cortez et al., Decision Support Systems 2009",
    ),
    RealSet(
        name="naval",
        rows=11934,
        features=_names(
            "lever position, ship speed, shaft torque, turbine revolutions, gas generator revolutions, "
            "starboard propeller torque, port propeller torque, turbine exit temperature, "
            "compressor inlet temperature, compressor outlet temperature, turbine exit pressure, "
            "compressor inlet pressure, compressor outlet pressure, exhaust gas pressure, turbine injection control, "
            "fuel flow"
        ),
        target="compressor decay",
        description="wear of a simulated frigate's gas turbine compressor, by what can be measured at sea",
        source="UCI: Coraddu et al., Journal of Engineering for the Maritime Environment 2016",
    ),
    RealSet(
        name="airfoil",
        rows=1503,
        features=_names(
            "frequency, angle of attack, chord length, free-stream velocity, suction side displacement thickness"
        ),
        target="sound pressure level",
        description="noise of an airfoil in a wind tunnel, in dB, by its size and angle and the speed of the air",
        source="UCI: Brooks, Pope & Marcolini, Airfoil Self-Noise and Prediction, NASA 1989",
        standard_splits=0,
    ),
)
