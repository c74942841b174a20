"""Pictures that move: paths through latents, windows and classes, and files of them, written frame by frame.

A path visits its stops one after the other and, where it loops, returns to the first; the last frame is one step before it, so that a
player that begins again shows no pause. WebP and GIF are assembled here from single frames that Pillow packs, because Pillow's own
animations hold all frames in memory; the containers are those of Google's WebP Container Specification and of GIF89a.
"""

import io
import math
import struct
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

from dnnlib.util import UserError, atomic_path
from inference.sheets import as_rgb

GIF_FPS = 50  # its clock knows hundredths of a second, and viewers slow down what is shorter than two
EASINGS = {'linear': lambda t: t, 'smooth': lambda t: 0.5 - 0.5 * math.cos(math.pi * t)}


# ---- Paths


def moments(stops, frames, loop=True, easing='smooth'):
    """Where each frame of a path is: (number of the stop before it, share of the way to the next one, 0 to 1).

    stops:  how many, at least 2;  frames: from one to the next;  loop: back to the first, of which only the first frame shows it
    easing: one of EASINGS; 'smooth' starts and ends each way slowly
    """
    ease = EASINGS[easing]
    path = [(stop, ease(step / frames)) for stop in range(stops if loop else stops - 1) for step in range(frames)]
    return path if loop else [*path, (stops - 2, 1.0)]


def between_windows(a, b, share):
    """The window (x0, y0, x1, y1) at a share of a zoom from a to b: each frame is larger or smaller than the last by the same factor.

    The point that stays where it is on the screen is the same throughout, as when a camera zooms.
    """
    window = []
    for low, high in ((0, 2), (1, 3)):
        (a0, a1), (b0, b1) = (a[low], a[high]), (b[low], b[high])
        before, after = a1 - a0, b1 - b0
        size = before * (after / before) ** share
        along = share if math.isclose(before, after, rel_tol=1e-9) else (size - before) / (after - before)
        start = a0 + (b0 - a0) * along
        window.append((start, start + size))
    (x0, x1), (y0, y1) = window
    return x0, y0, x1, y1


# ---- Files


def check(video_format, width, height, fps=30):
    """Raises UserError when a format cannot hold frames of that size, or so many a second."""
    if video_format == 'gif' and fps > GIF_FPS:
        raise UserError(f'--fps={fps}: gif shows at most {GIF_FPS} frames a second; give --format=webp or mp4')
    largest = {'mp4': 16384, 'webp': 16384, 'gif': 65535}[video_format]
    if max(width, height) > largest:
        raise UserError(f'{video_format} holds at most {largest} pixels a side, not {width}x{height}: lower --res')
    if video_format == 'mp4' and (width % 2 or height % 2):
        raise UserError(f'mp4 needs even sides, not {width}x{height}: give another --res, or --format=webp')


def write(path, frames, video_format, fps=30, quality=80):
    """Writes frames, an iterable of uint8 [H, W, C] of one size, as a video that repeats; an unfinished file leaves nothing behind.

    video_format: one of VIDEO_FORMATS;  quality: 0 to 100, of WebP alone
    Raises UserError where mp4 is asked for and imageio-ffmpeg is not installed.
    """
    writers = {'mp4': write_mp4, 'webp': write_webp, 'gif': write_gif}
    options = {'quality': quality} if video_format == 'webp' else {}
    with atomic_path(Path(path)) as temporary:
        writers[video_format](temporary, (np.ascontiguousarray(as_rgb(frame)) for frame in frames), fps, **options)


def write_if_possible(path, frames, fps=30):
    """An MP4 that belongs to other results: one line instead where imageio-ffmpeg is not installed. Returns whether it was written."""
    if not has_mp4():
        print('No video: imageio-ffmpeg is not installed (pip install imageio-ffmpeg)')
        return False
    write(path, frames, 'mp4', fps)
    print(path)
    return True


def has_mp4():
    """Whether imageio-ffmpeg is installed."""
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        return False
    return True


def write_mp4(path, frames, fps):
    """RGB frames [H, W, 3] as H.264."""
    if not has_mp4():
        raise UserError('mp4 needs imageio-ffmpeg, which is not installed: pip install imageio-ffmpeg, or give --format=webp')
    import imageio_ffmpeg

    writer = None
    try:
        for frame in frames:
            if writer is None:
                writer = imageio_ffmpeg.write_frames(str(path), frame.shape[1::-1], fps=fps, quality=8, macro_block_size=2)
                writer.send(None)
            writer.send(frame)
    finally:
        if writer is not None:
            writer.close()


def _milliseconds(fps):
    """Durations of frames in whole milliseconds, endlessly, whose sum stays right."""
    number = 0
    while True:
        yield round((number + 1) * 1000 / fps) - round(number * 1000 / fps)
        number += 1


def write_webp(path, frames, fps, quality):
    """RGB frames [H, W, 3] as an animated WebP; each frame stands alone."""
    def chunk(name, *parts):
        data = b''.join(parts)
        return name + struct.pack('<I', len(data)) + data  # never odd here, so never padded

    def size24(*values):
        return b''.join(struct.pack('<I', value)[:3] for value in values)

    with open(path, 'wb') as file:
        for number, (frame, duration) in enumerate(zip(frames, _milliseconds(fps), strict=False)):
            height, width = frame.shape[:2]
            if number == 0:
                file.write(b'RIFF\0\0\0\0WEBP' + chunk(b'VP8X', b'\x02\0\0\0', size24(width - 1, height - 1)))  # 2: animated
                file.write(chunk(b'ANIM', b'\xff\xff\xff\xff', b'\0\0'))  # white behind, repeats without end
            packed = io.BytesIO()
            Image.fromarray(frame).save(packed, 'webp', quality=quality, method=4)
            # at (0, 0); 2: replaces what was there
            file.write(chunk(b'ANMF', size24(0, 0, width - 1, height - 1, duration), b'\x02', packed.getvalue()[12:]))
        size = file.tell() - 8
        file.seek(4)
        file.write(struct.pack('<I', size))


def write_gif(path, frames, fps):
    """RGB frames [H, W, 3] as a GIF, each with a palette of its own; fps at most GIF_FPS."""
    with open(path, 'wb') as file:
        for number, (frame, duration) in enumerate(zip(frames, _milliseconds(10 * fps), strict=False)):  # in hundredths
            image = Image.fromarray(frame).quantize(256)
            if number == 0:
                file.write(b'GIF89a' + struct.pack('<HH', *image.size) + b'\0\0\0')  # no palette for all
                file.write(b'!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0')  # repeats without end
            file.write(b''.join(GifImagePlugin.getdata(image, duration=10 * duration, include_color_table=True)))
        file.write(b';')
