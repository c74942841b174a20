"""Generators of the authors' public INR-GAN implementation, rebuilt: its configuration and names of weights -> ours."""

import math
import re

import torch

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


_INITS = {'randn': 'normal', 'rand': 'uniform'}


def _features(config):
    spec = {field: config.get(key, default) for field, (key, default) in _FEATURES.items()}
    return {**spec, 'init': _INITS[config.get('init_dist', 'randn')]}


def constructor_arguments(config):
    """Arguments of inr.generator.Generator for a public configuration.

    config: dict with cfg (the generator's section), z_dim, w_dim, c_dim, img_resolution, img_channels, mapping_layers, channel_base,
        channel_max
    Raises ValueError for a key that is missing and for what the INR decoder has no counterpart of.
    """
    try:
        return _constructor_arguments(config)
    except KeyError as error:
        raise ValueError(f'the configuration of the public generator lacks {error}') from None
    except (AttributeError, TypeError) as error:
        raise ValueError(f'the configuration of the public generator has another shape than known: {error}') from None


def resolved(cfg):
    """A copy of a configuration with string keys in which what '${a.b}' names stands in its place; pickles hold the names.

    A name is a path from the section given or from one around it: its first parts are left out until the rest is found.
    Raises ValueError for a name that nothing has, and for names that name each other.
    """

    def look_up(reference):
        parts = reference.split('.')
        for start in range(len(parts)):
            found = cfg
            for part in parts[start:]:
                found = next((value for key, value in found.items() if str(key) == part), None) if isinstance(found, dict) else None
            if found is not None:
                return found
        raise ValueError(f"'${{{reference}}}' of the public configuration names nothing in it")

    def resolve(value, open_ones=()):
        if isinstance(value, dict):
            return {str(key): resolve(each, open_ones) for key, each in value.items()}
        match = re.fullmatch(r'\$\{([\w.]+)\}', value) if isinstance(value, str) else None
        if match is None:
            return value
        if match[1] in open_ones:
            raise ValueError(f"'{value}' of the public configuration names itself")
        return resolve(look_up(match[1]), (*open_ones, match[1]))

    return resolve(cfg)


def _constructor_arguments(config):
    cfg = resolved(config['cfg'])
    fmm, source, coords = cfg['fmm'], cfg['input'], cfg['coords']
    fuser = source['coord_fuser_cfg']
    for found, name, supported in (
        (source['type'], 'input.type', 'coords'),
        (cfg.get('use_noise', False), 'use_noise', False),
        *((part.get('fallback', False), 'fallback of coordinates', False) for part in (fuser, coords)),
        *((part.get('per_resolution', True), 'per_resolution of coordinates', True) for part in (fuser, coords)),
        *((part.get('kernel_size', 1), 'kernel_size of coordinates', 1) for part in (fuser, coords)),
    ):
        if found != supported:
            raise ValueError(f'{name} {found!r} of the public configuration is not supported; only {supported!r} is')
    sizes = [2**k for k in range(2, config['img_resolution'].bit_length())]
    extra = {int(res): number for res, number in cfg.get('num_extra_convs', {}).items()}  # by the grid that a block runs on
    above = [res for res in sizes if res > source['resolution']]
    synthesis = dict(
        channel_base=config['channel_base'],
        channel_max=config['channel_max'],
        fmm_rank=fmm['rank'] if fmm['enabled'] else None,
        squash=fmm['activation'] if fmm['enabled'] else 'demod',
        equalized=False,
        instance_norm=bool(fmm.get('instance_norm', False)),
        upsampling=cfg['upsampling_mode'],
        input_resolution=source['resolution'],
        extra_layers={res: extra.get(max(res, source['resolution']), 0) for res in sizes},
        input_features=_features(fuser['res_configs'][str(source['resolution'])]),
        features={res: _features(coords['res_configs'][str(res)]) if coords['enabled'] else {} for res in above},
    )
    given = {key: config[key] for key in ('z_dim', 'c_dim', 'w_dim', 'img_resolution', 'img_channels')}
    return dict(**given, mapping_kwargs=dict(num_layers=config['mapping_layers']), synthesis_kwargs=synthesis)


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


def translated(arguments, state):
    """A public generator under our names: (class name, constructor arguments, state dict).

    arguments: of the public constructor, {name: value}: z_dim, c_dim, w_dim, img_resolution, img_channels, mapping_kwargs,
        synthesis_kwargs and cfg;  state: {public name: tensor}
    Raises ValueError as constructor_arguments does.
    """
    mapping, synthesis = (dict(arguments.get(name) or {}) for name in ('mapping_kwargs', 'synthesis_kwargs'))
    sizes = {'channel_base': synthesis.pop('channel_base', 32768), 'channel_max': synthesis.pop('channel_max', 512)}
    found = constructor_arguments({**arguments, **sizes, 'mapping_layers': mapping.pop('num_layers', 8)})
    found['mapping_kwargs'].update(mapping)
    found['synthesis_kwargs'].update(synthesis)
    return 'inr.generator.Generator', found, renamed_state(state)


def load_state(generator, state):
    """Loads the weights of a public generator into ours; errors as of inr.generator.from_inr_gan."""
    state = renamed_state(state)
    for name, rule in generator.named_buffers():
        if name.endswith('log_basis') and not _same(state.pop(name, rule), rule):
            raise ValueError(f'{name} of the stored weights is not the logarithmic basis of its grid')
    generator.load_state_dict(state, strict=True)


def _same(stored, rule):
    return stored.shape == rule.shape and torch.allclose(stored.to(rule), rule)
