"""Scores of the snapshots of a run. A metric that fails costs a line in the log, never the run."""

import json
import time

import torch

from inference.painter import drawing_at_scales
from metrics import detectors, metric_main, registry
from torch_utils import distributed
from training.dataset import ImageDataset
from training.run_folder import add_line


class Evaluation:
    """What `training.training_loop.train` calls for every snapshot.

    settings: training.config.Config;  folder: of the run, metrics.jsonl is written there;  device: of this process
    """

    def __init__(self, settings, folder, device):
        self.settings, self.folder, self.device = settings, folder, device
        self.batch = settings.images_at_once(distributed.world_size())
        self.metrics = registry.parse_list(settings.run.metrics)
        data = settings.data
        self.dataset = ImageDataset(data.path, use_labels=data.label_dim > 0, resolution=data.res)  # all, without flips, as the names say
        for name in dict.fromkeys(metric.detector for metric in self.metrics if metric.detector):
            try:
                detectors.load(name)
            except Exception as err:  # told now, not only hours later at the first snapshot
                distributed.print0(f'Warning: --metrics={settings.run.metrics}: {_line(err)}')

    def due(self, images):
        """Whether the snapshot after `images` is to be scored: every metric_every-th of the regular ones, and the last of the run."""
        run = self.settings.run
        span = run.tick * run.snap * 1000
        number = int(images / span)
        regular = number > int((images - run.batch) / span)
        return (regular and number % run.metric_every == 0) or images >= run.kimg * 1000

    def __call__(self, G, images, say):
        """({name: figure}, cost): cost is what the best snapshot has least of, None where the first metric failed or nothing was due."""
        if not self.due(images):
            return {}, None
        subject = metric_main.Subject(self.dataset, G, batch=self.batch, device=self.device, draw=drawing_at_scales(G))
        figures, cost = {}, None

        def failed(group, err):
            if not isinstance(err, metric_main.OtherProcessFailed):
                say(f'kimg {images / 1000:g}: {", ".join(metric.score_name() for metric in group)} failed: {_line(err)}')

        with torch.no_grad():
            for score in metric_main.evaluate(self.metrics, subject, on_error=failed):
                figures.update(score.values)
                if score.metric == self.metrics[0]:
                    first = next(iter(score.values.values()))
                    cost = -first if score.metric.higher_is_better else first
                if distributed.is_main():
                    line = metric_main.as_json(score, images=images, date=time.strftime('%Y-%m-%dT%H:%M:%S'))
                    try:
                        add_line(self.folder / 'metrics.jsonl', json.dumps(line))
                    except OSError as err:
                        say(f'kimg {images / 1000:g}: not recorded in metrics.jsonl: {_line(err)}')
        return figures, cost


def _line(err):
    """An error as one line."""
    return ' '.join(str(err).split())[:600] or type(err).__name__
