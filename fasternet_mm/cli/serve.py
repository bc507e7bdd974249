"""A trained model behind HTTP."""

import argparse

from .parsing import add_checkpoint, add_engine, add_model, command_parser, port, positive, predictor_of

EPILOG = """examples:
  fasternet-mm serve WORK_DIR                      http://127.0.0.1:8000, for programs on this machine alone
  fasternet-mm serve model.onnx --port 9000
  fasternet-mm serve CONFIG CHECKPOINT --host 0.0.0.0 --max-megabytes 5     for everyone who reaches this machine

  curl http://127.0.0.1:8000/predict -F image=@street.jpg     the answer is JSON
  curl "http://127.0.0.1:8000/drawing?score_thr=0.5" -F image=@street.jpg -o drawing.png

http://127.0.0.1:8000/docs describes the rest. Images that arrive while the model computes go through it together next.
SIGTERM and Ctrl-C end the server once all that it has accepted is answered.
"""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Answer requests over HTTP: an image comes, predictions go back.', EPILOG)
    add_model(result)
    add_checkpoint(result)
    add_engine(result)
    result.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; default: 127.0.0.1, which this machine alone reaches; 0.0.0.0 is for all',
    )
    result.add_argument('--port', type=port, default=8000, help='default: 8000; 0 takes one that is free')
    result.add_argument(
        '--batch-size',
        type=positive,
        default=8,
        metavar='N',
        help='most images that are predicted together; default: 8',
    )
    result.add_argument(
        '--places',
        type=positive,
        default=32,
        metavar='N',
        help='most requests that are held at a time; further ones are told to come again (status 503); default: 32',
    )
    result.add_argument('--max-megabytes', type=float, default=20, metavar='MB', help='largest file; default: 20')
    result.add_argument('--max-megapixels', type=float, default=64, metavar='MP', help='largest image; default: 64')
    result.add_argument('--device', help='cuda, cuda:1 or cpu; default: a GPU where there is one')
    return result


def main(args: argparse.Namespace) -> None:
    from ..extras import require

    for package in ('starlette', 'python_multipart', 'uvicorn', 'httptools', 'prometheus_client'):
        require(package, 'fasternet-mm serve')
    from ..serving.http_server import serve
    from ..serving.uploads import Limits

    limits = Limits(args.max_megabytes, args.max_megapixels)
    predictor = predictor_of(args, args.source, args.checkpoint, batch_size=args.batch_size)
    serve(predictor, args.host, args.port, limits, args.places)
