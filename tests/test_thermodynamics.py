import numpy as np
import pytest
from scipy.integrate import quad

from jaxscape import Symmetry, database
from jaxscape.analysis import thermodynamics


def test_occupation_agrees_with_the_integral_over_each_well():
    # Two wells of different depth and width, far enough apart to be harmonic at this temperature.
    def energy(x):
        return np.where(x < 0, 0.1 + 50 * (x + 1) ** 2, 8 * (x - 1) ** 2)

    temperature = 0.05
    wells = [quad(lambda x: np.exp(-energy(x) / temperature), *side)[0] for side in ((-3, 0), (0, 4))]
    volumes = thermodynamics.log_volumes(
        np.array([0.1, 0.0]), np.log([100.0, 16.0]), np.zeros(2), np.array([temperature])
    )
    np.testing.assert_allclose(thermodynamics.occupation(volumes)[0], wells / np.sum(wells), rtol=1e-4)


def test_heat_capacity_is_the_slope_of_the_mean_energy():
    energies, determinants, orders = np.array([0.0, 1.0, 1.2]), np.array([3.0, 1.0, 0.5]), np.array([4, 1, 2])
    temperatures = np.linspace(0.2, 0.8, 5)
    points, ones = np.zeros((3, 12)), np.ones(3, int)
    minima = database.Minima(points, energies, np.zeros(3), points, determinants, np.log(orders), ones, ones)
    # Four atoms: of twelve directions six are translations and rotations.
    landscape = database.empty(Symmetry((), dim=12, num_atoms=4))._replace(minima=minima)
    capacity = thermodynamics.heat_capacity(landscape, temperatures)

    def mean_energy(shift):
        at = temperatures + shift
        weights = np.exp(-energies / at[:, None]) / np.sqrt(np.exp(determinants)) / orders
        return 3 * at + (weights @ energies) / weights.sum(axis=1)

    np.testing.assert_allclose(capacity, (mean_energy(1e-5) - mean_energy(-1e-5)) / 2e-5, rtol=1e-6)


def test_free_energies_of_groups_add_up():
    energies, zeros = np.array([0.0, 0.1, 0.3]), np.zeros(3)
    temperatures = np.array([0.1, 1.0])
    volumes = thermodynamics.log_volumes(energies, zeros, zeros, temperatures)
    free = thermodynamics.free_energies(volumes, np.array([0, 0, 1]), temperatures)
    shares = np.exp(-free / temperatures[:, None])
    np.testing.assert_allclose(shares[:, 0] / shares.sum(axis=1), thermodynamics.occupation(volumes)[:, :2].sum(axis=1))


def test_temperatures_and_determinants_are_checked():
    one, none = np.ones(1), np.zeros(1)
    with pytest.raises(ValueError, match="positive"):
        thermodynamics.log_volumes(one, one, none, np.array([0.0]))
    with pytest.raises(ValueError, match="not all known"):
        thermodynamics.log_volumes(one, np.nan * one, none, one)
