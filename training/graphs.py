"""Phases of a step recorded as CUDA graphs: launching thousands of small kernels one by one takes longer than they do.

A phase runs as it is a few times, in which kernels are compiled and chosen and the optimizer gets its state; then it is recorded, and from
there on replayed with other inputs. The kernels are the same, so are their results. What recording fails for goes on as it was.
"""

from collections.abc import Callable

import torch

from dnnlib.util import UserError
from torch_utils import distributed
from training import growing

WARM_UP = 3  # times that a phase runs before it is recorded

Inputs = dict[str, torch.Tensor]  # what a phase reads that is another in every step, by name
Recording = tuple[Callable[[], None], torch.Tensor]  # what runs it again, and the tensor that it leaves its result in


class CudaGraphs:
    """Records what a function does on a GPU, without doing it. Each recording keeps the memory that it takes for itself.

    Called, it returns a Recording. Raises RuntimeError where it fails, UserError where the device can then not be used any more.
    """

    def __init__(self) -> None:
        self._step: int | None = None  # bytes that a step takes

    def __call__(self, function: Callable[[], torch.Tensor]) -> Recording:
        if self._step is None:
            self._step = torch.cuda.max_memory_allocated()
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0]
        if free < 2 * self._step:  # one for the recording, one for what is not recorded
            raise RuntimeError(f'{free / 2**30:.1f} GiB of memory are free, and it takes up to {self._step / 2**30:.1f} beside as much for '
                               'the rest')
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # is the current one again if recording fails
                with torch.cuda.graph(graph, capture_error_mode='thread_local'):  # threads that load data may call CUDA meanwhile
                    result = function()
        except RuntimeError as err:
            reason = err.__context__ or err  # what ends a failed recording raises another
            try:
                torch.rand([], device='cuda').item()
            except RuntimeError:
                raise UserError(f'recording a step as a CUDA graph failed, and the GPU with it ({_in_a_line(reason)}): '
                                'go on with --resume and --no-cuda-graphs') from err
            raise RuntimeError(_in_a_line(reason)) from err
        return graph.replay, result


def _in_a_line(err: BaseException) -> str:
    return ' '.join(str(err).split())[:200]


class Recorder:
    """Runs phases of steps, recorded where it can. record: makes a Recording; device: where inputs are to be

    The attribute problem says why no more is recorded, None while all is well.
    """

    def __init__(self, device: torch.device, record: Callable[..., Recording] | None = None):
        self.device, self.record, self.problem = device, record or CudaGraphs(), None
        self.forget()

    def forget(self) -> None:
        """Begins anew: what was recorded reads tensors that are not to be read any more."""
        self._stage: growing.Stage | None = None
        self._seen: dict[str, int] = {}
        self._recorded: dict[str, tuple[Inputs, Callable[[], None], torch.Tensor]] = {}

    @property
    def recorded(self) -> set[str]:
        """The phases that are."""
        return set(self._recorded)

    def enter(self, stage: growing.Stage | None) -> None:
        """To be told the stage of every step: phases are recorded for one, and none while it changes from step to step."""
        if stage != self._stage:
            self.forget()
            self._stage = stage

    def is_due(self, phase: str) -> bool:
        """Whether a phase is recorded, or has run as it is often enough to be. Counts this time."""
        self._seen[phase] = self._seen.get(phase, 0) + 1
        return phase in self._recorded or (self._seen[phase] > WARM_UP and self.problem is None)

    def run(self, phase: str, inputs: Inputs, function: Callable[[Inputs], torch.Tensor]) -> torch.Tensor | None:
        """What function(inputs) returns, which is overwritten when the phase runs again. The function must do the same every time.

        None where it could not be recorded: nothing has been done then, and no more is recorded from now on.
        """
        if phase not in self._recorded:
            static = {name: value.to(self.device, copy=True) for name, value in inputs.items()}
            try:
                self._recorded[phase] = static, *self.record(lambda: function(static))
            except RuntimeError as err:
                self.problem = _in_a_line(err)
                return None
        static, replay, result = self._recorded[phase]
        for name, value in inputs.items():
            static[name].copy_(value, non_blocking=True)
        replay()
        return result


def recordable(settings, device: torch.device) -> bool:
    """Whether the phases of a run do the same in every step, without a look at values: on one GPU, in one pass, without augmentation, a
    path-length penalty or a distance between windows. settings: config.Config"""
    return (device.type == 'cuda' and settings.run.cuda_graphs and distributed.world_size() == 1 and settings.augment.kind == 'noaug'
            and settings.images_at_once(1) == settings.run.batch and not settings.loss.pl_weight and not settings.windows.consistency)
