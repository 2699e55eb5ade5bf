"""Which recipe, limits and bundles a start goes on with: those that were in force before it.

A changeover outlives a crash, a restart and a power cut, because the line still makes the product
that it was for. Only somebody at the line can say what it makes when the station file was changed
meanwhile: then the station is not Ready until it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from inspector.config.station_file import Station
from inspector.errors import NoBundleError, StartupError
from inspector.journal.schema import BundleInForce, LimitInForce, RecipeInForce
from inspector.wire.messages import RecipeSource


@dataclass(frozen=True)
class RecipeChoice:
    """What a station judges by, and why.

    ``recipe`` is loaded. ``question`` says why somebody must choose before a part is judged; ""
    when the choice is plain. ``kept`` is what the journal has to say: while there is a question,
    what it said before, so that another start asks it again.
    """

    recipe: str
    source: RecipeSource
    question: str
    kept: RecipeInForce


def choose(
    station: Station, before: RecipeInForce | None, ordered: str | None = None
) -> RecipeChoice:
    """The recipe that a start of ``station`` goes on with.

    ``before`` is what the journal has of the start before, None in a new journal. ``ordered`` is
    the recipe of ``run --recipe``, one of the station's.
    """
    if ordered is not None:
        return settled(station, ordered, "command")
    if before is None or before.recipe == station.recipe:
        return settled(station, station.recipe, "file")
    is_known = before.recipe in station.recipes
    if is_known and before.of_file == station.recipe:
        return settled(station, before.recipe, "journal")
    # Judges of some recipe are needed while the question stands; they judge no part.
    recipe = before.recipe if is_known else station.recipe
    question = _question(station, before)
    return RecipeChoice(recipe, "journal" if is_known else "file", question, before)


def settled(station: Station, recipe: str, source: RecipeSource) -> RecipeChoice:
    """``recipe`` is in force: ``source`` says so, and there is no question.

    ``station`` is as its file has it.
    """
    return RecipeChoice(recipe, source, "", RecipeInForce(station.station, recipe, station.recipe))


def _question(station: Station, before: RecipeInForce) -> str:
    if before.recipe not in station.recipes:
        why = f"recipe '{before.recipe}' was in force, and the station file no longer has it"
    else:
        why = (
            f"recipe '{before.recipe}' was in force, and the station file now names "
            f"'{station.recipe}', no longer '{before.of_file}'"
        )
    there = ", ".join(sorted(station.recipes))
    return (
        f"{why}: say what the line makes with 'inspector recipe NAME', or start with 'inspector "
        f"run --recipe NAME' (recipes of the file: {there}; for another line give it a 'station' "
        f"name of its own: this one's journal is in {station.state_folder})"
    )


def with_limits(
    station: Station, ordered: Iterable[LimitInForce]
) -> tuple[Station, list[tuple[LimitInForce, float]]]:
    """``station`` by the limits that were ordered before this start.

    Whoever spoke last counts. Where the station file was changed since the order its value is in
    force: these are returned too, each with the limit that was ordered, to be recorded.
    """
    overruled: list[tuple[LimitInForce, float]] = []
    for limit in ordered:
        if limit.camera not in station.recipes.get(limit.recipe, {}):
            continue
        of_file = station.recipes[limit.recipe][limit.camera].limit_factor
        if of_file == limit.of_file:
            station = station.with_limit(limit.recipe, limit.camera, limit.limit_factor)
        else:
            now = replace(limit, limit_factor=of_file, of_file=of_file)
            overruled.append((now, limit.limit_factor))
    return station, overruled


def with_bundles(
    station: Station, installed: Iterable[BundleInForce]
) -> tuple[Station, list[tuple[BundleInForce, str]]]:
    """``station`` by the bundles that were installed before this start.

    Orders for another station, and for a recipe or camera that is no more, say nothing. Where the
    station file names another file than it did at the order, that counts: these are returned too,
    each with the SHA-256 of the bundle that was in force, to be recorded.
    """
    overruled: list[tuple[BundleInForce, str]] = []
    changed = station
    for one in installed:
        if one.station != station.station or one.camera not in station.recipes.get(one.recipe, {}):
            continue
        of_file = str(station.recipes[one.recipe][one.camera].bundle)
        if of_file == one.of_file:
            changed = changed.with_bundle(one.recipe, one.camera, station.installed(one.sha256))
        else:
            overruled.append((replace(one, sha256="", before="", of_file=of_file), one.sha256))
    return changed, overruled


def with_cure(station: Station, camera: str, problem: StartupError) -> StartupError:
    """``problem`` of the bundle of ``camera``, with the way out where it is not plain."""
    if not station.is_installed(station.recipe, camera):
        if not isinstance(problem, NoBundleError):
            return problem
        return NoBundleError(
            f"{problem}, or start with 'inspector run ... --without-model' and train one on the "
            f"operator's page"
        )
    return type(problem)(
        f"{problem} (camera {camera}: this bundle was installed by command; to judge by that of "
        f"the station file, give its file another name, there too)"
    )
