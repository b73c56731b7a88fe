"""Noise is equal to torch's on a CPU, without torch."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from vinograph import RequestError
from vinograph.noise import MAX_SEED, PerImageNoise, TorchNoise, noise_from_generator, noise_from_seeds, random_seed

# torch's vectorised logarithm, sine and cosine differ from the C library's in the last bit.
TOLERANCE = 5e-7

SEEDS = (0, 1, 7, 987, 2**31, 2**32 - 1, 2**32, 2**32 + 7, 2**63, MAX_SEED)
COUNTS = (16, 64, 100, 9216, 16384, 17, 31, 144, 9216)


def torch_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_by_torch(generator: Any, *shape: int) -> Any:
    return randn_tensor(shape, generator=generator).numpy()


def assert_same(ours: Any, theirs: Any) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == theirs.shape
    assert float(np.abs(ours - theirs).max()) <= TOLERANCE


@pytest.mark.parametrize("seed", SEEDS)
def test_consecutive_draws_are_equal_to_torchs(seed: int) -> None:
    noise, generator = TorchNoise(seed), torch_generator(seed)
    for count in COUNTS:
        assert_same(noise.normal((count,)), drawn_by_torch(generator, count))


@pytest.mark.parametrize("shape", [(1, 16, 3, 3), (1, 16, 24, 24), (2, 4, 32, 48), (3, 4, 100)])
def test_a_batch_is_one_draw(shape: tuple[int, ...]) -> None:
    assert_same(TorchNoise(5).normal(shape), drawn_by_torch(torch_generator(5), *shape))


def test_noise_is_standard_normal() -> None:
    values = TorchNoise(3).normal((100_000,))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert np.isfinite(values).all()


def test_fewer_values_than_sixteen_are_refused() -> None:
    with pytest.raises(RequestError, match=r"noise of shape \(1, 15\) has 15 values; at least 16 are needed"):
        TorchNoise(0).normal((1, 15))


class TestSeeds:
    def test_each_picture_has_noise_of_its_own_seed(self) -> None:
        batch = noise_from_seeds([7, 8, 9])
        alone = [TorchNoise(seed) for seed in (7, 8, 9)]
        for shape in ((3, 16, 4), (3, 4, 5, 5)):
            expected = np.concatenate([each.normal((1, *shape[1:])) for each in alone])
            assert np.array_equal(batch.normal(shape), expected)

    def test_noise_is_that_of_diffusers_for_a_list_of_generators(self) -> None:
        batch, generators = noise_from_seeds([7, 8]), [torch_generator(7), torch_generator(8)]
        for shape in ((2, 16, 3, 3), (2, 4, 32, 32)):
            assert_same(batch.normal(shape), drawn_by_torch(generators, *shape))

    def test_a_batch_of_another_length_is_refused(self) -> None:
        with pytest.raises(RequestError, match="2 generators were given for 3 pictures; give one each"):
            noise_from_seeds([1, 2]).normal((3, 16))

    def test_a_random_seed_is_short_enough_to_type(self) -> None:
        seeds = {random_seed() for _ in range(50)}
        assert len(seeds) > 45
        assert all(0 <= seed < 2**32 for seed in seeds)


class TestTorchGenerator:
    @pytest.mark.parametrize("before", [0, 1, 5, 16, 100, 623, 624, 625, 10_000])
    def test_a_generator_draws_from_its_present_state(self, before: int) -> None:
        """It is advanced as if torch had drawn from it."""
        ours, theirs = torch_generator(1), torch_generator(1)
        for generator in (ours, theirs):
            for _ in range(before):
                torch.rand(1, generator=generator)
        noise = noise_from_generator(ours)
        for count in COUNTS:
            assert_same(noise.normal((count,)), drawn_by_torch(theirs, count))
            assert torch.equal(torch.rand(3, generator=ours), torch.rand(3, generator=theirs))
        assert torch.equal(torch.randn(100, generator=ours), torch.randn(100, generator=theirs))
        assert torch.equal(
            torch.randint(0, 2**31, (700,), generator=ours), torch.randint(0, 2**31, (700,), generator=theirs)
        )

    def test_a_fresh_generator_draws_as_its_seed(self) -> None:
        assert np.array_equal(noise_from_generator(torch_generator(9)).normal((64,)), TorchNoise(9).normal((64,)))

    def test_a_generator_shared_by_two_draws_continues(self) -> None:
        generator, alone = torch_generator(2), TorchNoise(2)
        first = noise_from_generator(generator).normal((64,))
        second = noise_from_generator(generator).normal((64,))
        assert np.array_equal(
            np.concatenate([first, second]), np.concatenate([alone.normal((64,)), alone.normal((64,))])
        )

    def test_a_generator_for_two_pictures_is_drawn_from_twice(self) -> None:
        ours, theirs = torch_generator(4), torch_generator(4)
        assert_same(noise_from_generator([ours, ours]).normal((2, 64)), drawn_by_torch([theirs, theirs], 2, 64))

    def test_a_generator_of_another_device_is_refused(self) -> None:
        class Elsewhere:
            device = torch.device("meta")

            def get_state(self) -> None: ...

            def manual_seed(self, seed: int) -> None: ...

        with pytest.raises(RequestError, match=r"generator is on the device 'meta'; give one on the CPU"):
            noise_from_generator(Elsewhere())

    def test_a_state_of_unknown_layout_is_refused(self) -> None:
        class Newer:
            def get_state(self) -> torch.Tensor:
                return torch.zeros(16, dtype=torch.uint8)

            def manual_seed(self, seed: int) -> None: ...

        with pytest.raises(RequestError, match="unknown layout; give seed= instead"):
            noise_from_generator(Newer())


class TestRandomState:
    @pytest.mark.parametrize("seed", [0, 987, 2**32 - 1])
    def test_a_numpy_state_is_used_as_its_seed(self, seed: int) -> None:
        ours = noise_from_generator(np.random.RandomState(seed))
        assert_same(ours.normal((100,)), drawn_by_torch(torch_generator(seed), 100))

    def test_a_numpy_state_is_not_advanced(self) -> None:
        state = np.random.RandomState(987)
        first, second = (noise_from_generator(state).normal((64,)) for _ in range(2))
        assert np.array_equal(first, second)
        assert state.randint(1000) == np.random.RandomState(987).randint(1000)


class TestList:
    def test_a_list_has_a_generator_per_picture(self) -> None:
        noise = noise_from_generator([np.random.RandomState(1), torch_generator(2)])
        assert isinstance(noise, PerImageNoise)
        assert np.array_equal(noise.normal((2, 16)), noise_from_seeds([1, 2]).normal((2, 16)))

    def test_a_list_of_one_generator_serves_all_pictures(self) -> None:
        ours = noise_from_generator([torch_generator(3)])
        assert_same(ours.normal((4, 36)), drawn_by_torch([torch_generator(3)], 4, 36))

    def test_a_list_of_the_wrong_length_is_refused(self) -> None:
        noise = noise_from_generator((torch_generator(1), torch_generator(2)))
        with pytest.raises(RequestError, match="2 generators were given for 4 pictures"):
            noise.normal((4, 16))


@pytest.mark.parametrize("given", [5, "7", None, np.random.default_rng(1), [1, 2]])
def test_other_objects_are_refused(given: Any) -> None:
    with pytest.raises(RequestError, match=r"give a torch.Generator, a numpy.random.RandomState, or a list"):
        noise_from_generator(given)


def test_the_first_pictures_noise_can_be_taken_alone() -> None:
    alone = TorchNoise(5)
    assert alone.first(2) is alone
    each = noise_from_seeds((5, 6))
    drawn = each.first(1).normal((1, 16))
    assert np.array_equal(drawn, TorchNoise(5).normal((1, 16)))
    assert np.array_equal(each.normal((2, 16))[1:], TorchNoise(6).normal((1, 16))), "only the first has moved on"
