"""INR-GAN: a generator that draws a function of the point (Skorokhodov et al., CVPR 2021).

A plug-in: copied alone into a project with the layout of stylegan2-ada-pytorch it works by naming `inr.generator.Generator`.
"""

REFINEMENTS = ('last', 'all', 'smooth')  # what becomes denser in a picture larger than the trained one, see refinement.plan
PERIODIC = ('none', 'x', 'y', 'xy')  # axes along which a picture goes on at its beginning
