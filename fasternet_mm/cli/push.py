"""Publish a trained model on the Hugging Face hub."""

import argparse

from .parsing import command_parser

EPILOG = """examples:
  fasternet-mm push WORK_DIR user/name --dry-run published    write what would be published to a folder, and look at it
  fasternet-mm push WORK_DIR user/name --private              only you can read it
  fasternet-mm push WORK_DIR user/name --license apache-2.0 --data-name "blood cells"
  fasternet-mm predict hf://user/name images/                 whoever may read it uses it by its name

Two files are published: model.safetensors, the weights and settings that predictions need, which holds no code, no
paths and nothing of the training's state; and README.md, a page on data, figures and training. Log in before, with
hf auth login.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Publish a trained model, with a page about it, on the Hugging Face hub.', EPILOG)
    result.add_argument('work_dir', metavar='WORK_DIR', help='work directory of a training')
    result.add_argument('repository', metavar='USER/NAME', help='the repository; it is made where it does not exist')
    result.add_argument('--private', action='store_true', help='make a repository that only its owner can read')
    result.add_argument('--revision', metavar='BRANCH', help='the branch, made where it is missing; default: main')
    result.add_argument('--message', metavar='TEXT', help='of the commit; default: the name of the model')
    result.add_argument(
        '--license',
        metavar='NAME',
        help="the license that you give the model, by the hub's name, such as apache-2.0; default: none is stated",
    )
    result.add_argument('--data-name', metavar='NAME', help='what the page calls the data; default: no name')
    result.add_argument('--yes', action='store_true', help='publish without asking')
    result.add_argument(
        '--dry-run', metavar='FOLDER', help='write the files to this new or empty folder, and publish nothing'
    )
    return result


def main(args: argparse.Namespace) -> None:
    import sys
    import tempfile
    from pathlib import Path

    from ..errors import UserError
    from ..files import write_atomically
    from ..hub.model_card import license_of_start, model_card
    from ..hub.published_files import read_run, write_model
    from ..hub.run_record import model_name
    from ..hub.upload import CARD, checked_name, find_destination, upload
    from ..weights.hugging_face import FILE, hub_api

    hub_api()
    repository = checked_name(args.repository)
    if args.dry_run and Path(args.dry_run).is_dir() and any(Path(args.dry_run).iterdir()):
        raise UserError(f'{args.dry_run} is not empty: give a new folder')
    destination = None if args.dry_run else find_destination(repository, args.private)
    run = read_run(args.work_dir)
    card = model_card(run, repository, args.license, args.data_name)
    with tempfile.TemporaryDirectory() as draft:
        folder = Path(args.dry_run or draft)
        files = [folder / FILE, folder / CARD]
        write_model(run, files[0])
        write_atomically(files[1], card.encode())
        print(f'model:   {model_name(run.cfg)}, {len(run.classes)} classes, {run.checkpoint.name}')
        print(f'files:   {", ".join(f"{file.name} ({file.stat().st_size / 1e3:,.0f} kB)" for file in files)}')
        print(f'license: {args.license or "not stated (--license)"}. {license_of_start(run)}'.rstrip('. '))
        if destination is None:
            print(f'written: {args.dry_run}; nothing was published')
            return
        state = 'replaces these files there' if destination.exists else 'new'
        readers = 'private: only its owner can read it' if destination.private else 'public: everybody can read it'
        print(f'to:      {destination.url}, {args.revision or "main"}; {state}; {readers}', flush=True)
        if not args.yes:
            if not sys.stdin.isatty():
                raise UserError('nothing was published, since nobody can answer here: add --yes')
            if input('Publish it? [y/N] ').strip().lower() not in ('y', 'yes'):
                print('nothing was published')
                return
        message = args.message or f'{model_name(run.cfg)} of fasternet-mm'
        commit = upload(destination, files, message, args.revision)
    branch = f'@{args.revision}' if args.revision else ''
    print(f'published: {destination.url}/tree/{commit}')
    print(f'to use it: fasternet-mm predict hf://{repository}{branch} IMAGES')
