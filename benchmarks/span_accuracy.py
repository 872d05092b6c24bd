"""How exact is what updates say of layers' inputs before any search: `subspace.py` prints it."""

import argparse
import time

import torch
import torch.nn.functional as F
from stock_clients import LINES, SIZE, Line, delta_of, network_of, update_of
from ten_people import batches

from fedaudit.attacks.evidence.common_maps import common_maps
from fedaudit.attacks.evidence.layer_inputs import InputReader
from fedaudit.attacks.evidence.span_spectrum import find_spans
from fedaudit.attacks.evidence.unmixed_maps import unmix
from fedaudit.attacks.gathering.gather import gather_inputs
from fedaudit.core.observation import ModelSpec, Observation
from fedaudit.core.shared import Update
from fedaudit.data.face_set import FaceSet
from fedaudit.models import live_module


def chosen(options: argparse.Namespace) -> list[Line]:
    """The lines that are asked for."""
    return [line for line in LINES if any(part in line.name for part in options.only)]


def maps(faces: FaceSet, options: argparse.Namespace) -> None:
    """What follows in closed form: how exact the maps of batches are."""
    print(
        "| network | batch | layers | sin² of the batch's maps | CPU s | "
        "each photo's own, 1 − cos | CPU s |\n|---|---|---|---|---|---|---|"
    )
    for line in chosen(options):
        for size in options.batch:
            model = network_of(line, faces, options.seeds[0], options.people)
            images = faces.images[next(batches(faces, size, 1, options.seeds[0], options.people))]
            reader = InputReader(model, (3, SIZE, SIZE), size)
            begun = time.process_time()
            update = update_of(model, images, torch.arange(size) % 8)
            spans = find_spans(reader, update, clean=True)
            bases = {span.name: common_maps(reader, span) for span in spans}
            known = {name: basis for name, basis in bases.items() if basis is not None}
            spent = time.process_time() - begun
            with torch.no_grad():
                entered = reader.inputs(list(known), images) if known else {}
            begun = time.process_time()
            own = {name: rows for name in known if (rows := unmix(known[name])) is not None}
            apart = time.process_time() - begun
            lost, missed = [0.0], []
            for name, basis in known.items():
                true = F.normalize(entered[name][0][1].flatten(1).double(), dim=1)
                lost.append(float((true - true @ basis.T @ basis).square().sum(1).max()))
                if name in own:  # each photo's nearest
                    missed.append(1 - float((own[name] @ true.T).max(0).values.min()))
            worst = f"{max(missed):.0e} in {len(missed)} layers" if missed else "–"
            print(
                f"| {line.name} | {size} | {len(known)} | {max(lost):.0e} | {spent:.1f} | "
                f"{worst} | {apart:.1f} |",
                flush=True,
            )


def misfits(faces: FaceSet, options: argparse.Namespace) -> None:
    """By how much the true images miss what several local steps say of each layer's inputs."""
    print("| network | batch | weight | of the photos | as simulated |\n|---|---|---|---|---|")
    for line in (line for line in chosen(options) if line.local):
        for size in options.batch:
            model = network_of(line, faces, options.seeds[0], options.people)
            images = faces.images[next(batches(faces, size, 1, options.seeds[0], options.people))]
            assert line.local is not None
            delta, _ = delta_of(model, images, torch.arange(size) % 8, line.local)
            seen = Observation(
                model=ModelSpec(live_module.FACTORY, {"module": model, "redrawn": ()}),
                before=model.state_dict(),
                shared=(Update("delta", delta),),
                image_shape=(3, SIZE, SIZE),
                batch_size=size,
                training=line.local,
            )
            evidence = gather_inputs(seen)
            spans = evidence.spans
            with torch.no_grad():
                uses = evidence.reader.inputs([span.name for span in spans], images)
                for span in spans:
                    own = float(span.distance(span.rows(uses[span.name], size)))
                    expected = evidence.misfit.get(span.name, float("nan"))
                    print(f"| {line.name} | {size} | {span.name} | {own:.1e} | {expected:.1e} |")
