"""The frequencies of sinusoidal embeddings are those of diffusers."""

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding

from vinograph.networks.embeddings import frequencies


@pytest.mark.parametrize(("width", "shift"), [(256, 0), (320, 0), (320, 1), (48, 0)])
def test_frequencies_are_those_of_torch_but_for_rare_last_bits(width: int, shift: float) -> None:
    """A timestep multiplies an error in the last bits a thousandfold."""
    sines = get_timestep_embedding(torch.ones(1), width, downscale_freq_shift=shift, flip_sin_to_cos=False)
    decay = -np.float32(np.log(10_000)) * np.arange(width // 2, dtype=np.float32) / np.float32(width // 2 - shift)
    theirs = torch.from_numpy(decay).exp().numpy()
    found = frequencies(width, shift)
    np.testing.assert_allclose(np.sin(found), sines[0, : width // 2].numpy(), rtol=1e-6)
    assert np.mean(found != theirs) < 0.05
    np.testing.assert_array_max_ulp(found, theirs, 1)
