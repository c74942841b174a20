"""Network pickles as the public trainers write them, of any protocol: the same opcodes and names, with a source text of their own."""

import io
import pickle
from collections import OrderedDict

import torch

SOURCE = "import os\nos.mkdir('made by the source text of a pickle')\n"  # never run by a reader that runs nothing


class Named:
    """Something that a pickle names and does not hold: pickled as a global, whether or not there is one."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self, *args):
        raise AssertionError('only to be pickled')


class Made:
    """What a call of a Named returns. attributes: what the object is given then (BUILD); pairs: put into it as into a dict."""

    def __init__(self, call, args=(), attributes=None, pairs=None):
        self.call, self.args, self.attributes, self.pairs = call, args, attributes, pairs

    def parts(self):
        return self.call, self.args, self.attributes, None, iter(self.pairs.items()) if self.pairs is not None else None


class _Writer(pickle._Pickler):
    dispatch = dict(pickle._Pickler.dispatch)

    def reducer_override(self, obj):
        return obj.parts() if isinstance(obj, Made) else NotImplemented

    def save_named(self, obj):
        if self.proto >= 4:
            self.save(obj.module)
            self.save(obj.name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f'{obj.module}\n{obj.name}\n'.encode())
        self.memoize(obj)

    dispatch[Named] = save_named


def dumps(value, protocol=4):
    file = io.BytesIO()
    _Writer(file, protocol).dump(value)
    return file.getvalue()


def easy_dict(**pairs):
    return Made(Named('dnnlib.util', 'EasyDict'), (), None, pairs)


def configuration(value, parent=None):
    """omegaconf's nodes of a plain configuration."""
    if isinstance(value, dict):
        about = Made(Named('omegaconf.base', 'ContainerMetadata'), (), {'ref_type': Named('typing', 'Any')})
        state = {'_metadata': about, '_parent': parent}
        node = Made(Named('omegaconf.dictconfig', 'DictConfig'), (), state)
        state['_content'] = {key: configuration(each, node) for key, each in value.items()}
        return node
    return Made(Named('omegaconf.nodes', 'AnyNode'), (), {'_metadata': None, '_parent': parent, '_val': value})


def network(class_name, arguments, state, positional=(), parameters=True):
    """An object of torch_utils.persistence with the parts that the dots in the keys of a state dict speak of."""
    def part(tree, name, more):
        tensors = {key: value for key, value in tree.items() if not isinstance(value, dict)}
        parts = {key: part(value, 'Layer', {}) for key, value in tree.items() if isinstance(value, dict)}
        attributes = {'training': False, '_parameters': OrderedDict(), '_buffers': OrderedDict(),
                      '_non_persistent_buffers_set': {'scratch'}, '_forward_hooks': OrderedDict(), '_modules': OrderedDict(parts),
                      'cached': torch.ones(2), **more}
        for key, value in tensors.items():
            place = '_buffers' if key in ('resample_filter', 'w_avg', 'noise_const', 'log_basis') or not parameters else '_parameters'
            attributes[place][key] = torch.nn.Parameter(value) if place == '_parameters' else value
        attributes['_buffers'] |= {'scratch': torch.ones(3)}
        attributes['_parameters']['nothing'] = None
        about = {'type': 'class', 'version': 6, 'module_src': SOURCE, 'class_name': name, 'state': attributes}
        return Made(Named('torch_utils.persistence', '_reconstruct_persistent_obj'), (about,))

    tree = {}
    for key, value in state.items():
        *places, last = key.split('.')
        inner = tree
        for place in places:
            inner = inner.setdefault(place, {})
        inner[last] = value
    return part(tree, class_name, {'_init_args': tuple(positional), '_init_kwargs': arguments})


def snapshot(path, networks, protocol=4):
    """Writes {name: Made} as a trainer does; returns the path."""
    data = {'class_name': 'training.dataset.ImageFolderDataset', 'path': 'none.zip', 'resolution': 32}
    path.write_bytes(dumps({'training_set_kwargs': data, **networks, 'augment_pipe': None}, protocol))
    return path
