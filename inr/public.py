"""Generators of the authors' public INR-GAN implementation, rebuilt: its configuration and names of weights -> ours."""

import math
import re

_FEATURES = {  # field of FeatureSpec -> (key of the public configuration, its default)
    'log': ('log_emb_size', 0),
    'diagonal': ('use_diagonal', False),
    'random': ('random_emb_size', 0),
    'learned': ('shared_emb_size', 0),
    'generated': ('predictable_emb_size', 0),
    'constants': ('const_emb_size', 0),
    'raw': ('use_raw_coords', False),
    'cosine': ('use_cosine', False),
    'scale': ('fourier_scale', math.sqrt(10)),
}
_RENAMED = [  # pattern of a public key -> ours
    (r'^(synthesis\.b\d+)\.input\.input\.coord_fuser\.', r'\1.coords.'),
    (r'^(synthesis\.b\d+)\.coord_fuser\.', r'\1.coords.'),
    (r'^(synthesis\.b4)\.conv1\.', r'\1.layers.0.'),
    (r'^(synthesis\.b4)\.extra_convs\.(\d+)\.', lambda m: f'{m[1]}.layers.{int(m[2]) + 1}.'),
    (r'^(synthesis\.b\d+)\.conv([01])\.', r'\1.layers.\2.'),
    (r'^(synthesis\.b\d+)\.extra_convs\.(\d+)\.', lambda m: f'{m[1]}.layers.{int(m[2]) + 2}.'),
]


def _features(config):
    return {field: config.get(key, default) for field, (key, default) in _FEATURES.items()}


def constructor_arguments(config):
    """Arguments of inr.generator.Generator for a public configuration.

    config: dict with cfg (the generator's section), z_dim, w_dim, c_dim, img_resolution, img_channels, mapping_layers, channel_base,
        channel_max
    Raises ValueError for what the INR decoder has no counterpart of.
    """
    cfg = config['cfg']
    fmm, source = cfg['fmm'], cfg['input']
    if source['type'] != 'coords':
        raise ValueError(f"input of type '{source['type']}' is not supported; only 'coords' is")
    if cfg.get('use_noise', False):
        raise ValueError('a generator with spatial noise is not supported; only use_noise: false is')
    coords = cfg['coords']['res_configs'] if cfg['coords']['enabled'] else {}
    enabled = fmm['enabled']
    synthesis = dict(
        channel_base=config['channel_base'],
        channel_max=config['channel_max'],
        fmm_rank=fmm['rank'] if enabled else None,
        squash=fmm['activation'] if enabled else 'demod',
        equalized=False,
        instance_norm=bool(fmm.get('instance_norm', False)),
        upsampling=cfg['upsampling_mode'],
        input_resolution=source['resolution'],
        extra_layers=cfg.get('num_extra_convs', {}),
        input_features=_features(source['coord_fuser_cfg']['res_configs'][str(source['resolution'])]),
        features={res: _features(features) for res, features in coords.items() if int(res) > source['resolution']},
    )
    sizes = {key: config[key] for key in ('z_dim', 'c_dim', 'w_dim', 'img_resolution', 'img_channels')}
    return dict(**sizes, mapping_kwargs=dict(num_layers=config['mapping_layers']), synthesis_kwargs=synthesis)


def renamed_state(state):
    """Weights of a public generator under our names; resampling filters, which 1x1 layers have no use for, are left out."""
    result = {}
    for key, value in state.items():
        if key.startswith('synthesis.') and key.endswith('resample_filter'):
            continue
        for pattern, replacement in _RENAMED:
            key = re.sub(pattern, replacement, key)
        result[key] = value
    return result
