"""The rungs of the paper's Table 4, from a plain INR that gets the latent beside the coordinates to generator A. Needs no torch."""

from dataclasses import dataclass

SHARED, GENERATED, FMM = 'shared', 'generated', 'fmm'


@dataclass(frozen=True)
class Decoder:
    """A rung of Table 4.

    weights: 'shared' by all images, the latent then being an input; 'generated' whole; or 'fmm': shared ones modulated
    fourier: the INR gets a Fourier embedding, else the raw coordinates; multiscale: it has several grids
    """

    weights: str
    fourier: bool
    multiscale: bool


DECODERS = {
    'basic': Decoder(SHARED, fourier=False, multiscale=False),
    'hyper': Decoder(GENERATED, fourier=False, multiscale=False),
    'fourier': Decoder(GENERATED, fourier=True, multiscale=False),
    'fmm': Decoder(FMM, fourier=True, multiscale=False),
    'multiscale': Decoder(FMM, fourier=True, multiscale=True),
}
