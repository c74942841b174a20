"""What README and docs/ name is there: linked files and headings, options of the commands."""

import importlib
import re

import pytest

from tests.helpers import ROOT

PAGES = ['README.md', 'assets/README.md', *(f'docs/{path.name}' for path in sorted((ROOT / 'docs').glob('*.md')))]
COMMANDS = ('train', 'generate', 'walk', 'projector', 'dataset_tool', 'calc_metrics', 'analyze', 'viewer')


def headings(path):
    """The anchors of a page, as GitHub makes them: a heading that comes again gets -1, -2."""
    text, found = re.sub(r'^```.*?^```', '', path.read_text(encoding='utf-8'), flags=re.MULTILINE | re.DOTALL), []
    for heading in re.findall(r'^#+ (.*)$', text, re.MULTILINE):
        name = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        again = sum(1 for other in found if re.fullmatch(re.escape(name) + r'(-\d+)?', other))
        found.append(f'{name}-{again}' if again else name)
    return found


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', (ROOT / page).read_text(encoding='utf-8')):
        if target.startswith('http'):
            continue
        name, _, anchor = target.partition('#')
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f'{page}: {target}'
        assert not anchor or anchor in headings(path), f'{page}: {target}'


def options(command):
    """All options of a click command and of those in it."""
    found = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return found.union(*(options(part) for part in getattr(command, 'commands', {}).values()))


@pytest.mark.parametrize('page', ['README.md', 'docs/guide.md', 'script/demo', 'script/train-demo-model'])
def test_commands_shown_have_these_options(page):
    text, shown = (ROOT / page).read_text(encoding='utf-8'), 0
    for name, rest in re.findall(rf'\b({"|".join(COMMANDS)})\.py ([^\n`#]*)', text):
        known = options(importlib.import_module(name).main) | {'--help'}
        for flag in re.findall(r'(?<!\S)--[a-z][a-z0-9-]*', rest):
            shown += 1
            assert flag in known, f'{page}: {name}.py {flag}'
    assert shown
