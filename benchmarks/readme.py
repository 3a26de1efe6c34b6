"""Write the numbers of README and docs from committed result files: ``python benchmarks/readme.py``.

No measured number there is typed. What stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` is made here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from astrea.estimate.table import short_count
from astrea.lab.arena.lr_sweep import FACTORS
from astrea.lab.arena.variants import ablation_title, ablations
from astrea.model.components import CARD
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.world.bundled import BUNDLED_MODEL
from astrea.world.scenes.questions import VQA_TASKS
from readme_tables import (
    budgets_table,
    conflict_table,
    gap,
    gpu_table,
    join_table,
    load_table,
    outside_line,
    photo_equal_table,
    photo_line,
    photo_models_table,
    photo_short_table,
    photo_table,
    photographs_line,
    photographs_table,
    reading_table,
    seen_table,
    skip_table,
    spread,
    states_table,
    ways_table,
    whole_run_table,
)

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def tasks_table(results: dict[str, Any]) -> str:
    """The twelve tasks, blind beside seeing."""
    rows = ["| task | metric | score | blind | n |", "| --- | --- | ---: | ---: | ---: |"]
    for name, task in results["tasks"].items():
        rows.append(f"| {name} | {task['metric']} | {task['score']:.1f} | {task['blind']:.1f} | {task['n']} |")
    rows.append(f"| **average** | | **{results['average']:.1f}** | **{results['blind_average']:.1f}** | |")
    return "\n".join(rows)


def facts(results: dict[str, Any]) -> str:
    """The figures beside the table, in sentences."""
    masked = ", ".join(f"{name} {change:+.1f}" for name, change in results["masking"].items())
    # The seconds that steps waited for their batches are in the stages' already.
    minutes = sum(seconds for name, seconds in results["seconds"].items() if name != "waiting") / 60
    return (
        f"Seed {results['seed']}; {minutes:.1f} minutes of work on two cores, without installing; "
        f"{results['params']['total'] / 1e6:.2f} M parameters, {results['params']['trainable'] / 1e6:.2f} M of them "
        f"trained. Largest load over the mean: {results['load']['max_over_mean']:.2f}. "
        f"The average when one expert is masked: {masked} points."
    )


def shipped_line(card: dict[str, Any]) -> str:
    """What the model that comes with the package scores, and how it is made, in sentences."""
    scores = card["scores"]
    lead, where = min((row["score"] - row["blind"], task) for task, row in scores["tasks"].items() if task in VQA_TASKS)
    return (
        f"The bundled model averages {scores['average']:.1f} (blind {scores['blind_average']:.1f}) "
        f"on the same test set; on no kind of question does it lead by less than {lead:.0f} points ({where}). "
        f"`{card['command']}` makes it again."
    )


def speed_line(speed: dict[str, Any]) -> str:
    """What the feature cache and the processor give, in sentences."""
    tune, align = (speed[name]["cached_over_uncached"]["median"] for name in ("tune_step", "align_step"))
    share = speed["language_pass_of_gemm"]["share"]["median"]
    return (
        f"With frozen outputs cached (experts' features, captions' states) an `align` step is {align:.1f} times and a "
        f"`tune` step {tune:.1f} times as fast as with all of them computed again; the language model's pass "
        f"reaches {share:.0%} of the machine's fp32 matrix rate (`benchmarks/train_speed.py`)."
    )


def arena_table(arena: dict[str, Any]) -> str:
    """Strategies from best to worst."""
    rows = [
        "| strategy | average | seeds | minus Astrea (95 %) | trained parameters | training seconds | what it is |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in arena["strategies"].items():
        mean, apart = row["average"], None if name == "astrea" else row["difference"]
        rows.append(
            f"| {name} | {spread(mean)} | {mean['seeds']} | {gap(apart)} | {row['params_trainable'] / 1e6:.2f} M | "
            f"{row['wall_s']:.0f} | {row['note']} |"
        )
    return "\n".join(rows)


def variants_table(arena: dict[str, Any]) -> str:
    """Astrea without each ingredient, without each expert, with two experts only."""
    rows = ["| variant | average | seeds | minus Astrea (95 %) | what it is |", "| --- | ---: | ---: | ---: | --- |"]
    forms = {"ablations": ablation_title, "retraining": "retrained without {}".format, "pairs": "{} only".format}
    # In today's terms; result files keep those of their time.
    notes = {each.name: each.note for each in ablations(load_recipe(Recipe, "tiny"))}
    for kind, form in forms.items():
        for name, row in arena[kind].items():
            note = notes.get(name, row["note"]) if kind == "ablations" else row["note"]
            rows.append(f"| {form(name)} | {spread(row)} | {row['seeds']} | {gap(row['difference'])} | {note} |")
    return "\n".join(rows)


def headline(arena: dict[str, Any]) -> str:
    """Astrea and the best other strategy, in sentences."""
    ours, other = arena["strategies"]["astrea"], arena["strategies"][arena["best_other"]["name"]]
    wall = arena["equal_wall"].get(arena["best_other"]["name"])
    longer = (
        "" if wall is None else f" (given at least as much time instead of as many steps: {spread(wall['average'])})"
    )
    return (
        f"At equal data, steps and visual tokens Astrea averages {spread(ours['average'])} "
        f"({ours['average']['seeds']} seeds), the best other strategy, "
        f"{arena['best_other']['name'].replace('_', ' ')}, {spread(other['average'])}{longer}; Astrea is best on "
        f"{arena['wins']} of {len(arena['tasks'])} tasks."
    )


def neutral_line(arena: dict[str, Any]) -> str:
    """Astrea beside plain and aligned sequence concat, with a language model that has met none of the tasks."""
    ours, other, same = (
        arena["strategies"][name]["average"] for name in ("astrea", "sequence_concat", "sequence_concat_aligned")
    )
    seeds = f"{ours['seeds']} seed" + ("" if ours["seeds"] == 1 else "s")
    return (
        f"With a language model that has met none of these tasks Astrea averages {spread(ours)}, sequence concat "
        f"{spread(other)}, and sequence concat aligned as Astrea is {spread(same)} ({seeds}, {arena['measured_on']} "
        f"pictures, short runs)."
    )


def adaptivity_table(arena: dict[str, Any]) -> str:
    """What variants of Astrea save, survive and say of their experts."""
    columns = {
        "load": ("load, largest over mean", 2),
        "calibration": ("calibration", 2),
        "relative": ("relative", 2),
        "per_task": ("per task", 2),
        "fewer_tokens": ("reading 60 % of the tokens costs", 1),
        "masked": ("an expert masked costs", 1),
        "swapped": ("describing another picture", 1),
        "frozen": ("always the same picture", 1),
        "constant": ("stuck", 1),
        "nan": ("not a number", 1),
    }
    rows = [
        f"| variant | seeds | {' | '.join(head for head, _ in columns.values())} |",
        f"| --- | {'---: | ' * (len(columns) + 1)}".rstrip(),
    ]
    for name, row in arena["adaptivity"].items():
        found = [
            spread({"mean": row[key], "std": row["std"].get(key)}, digits) if row.get(key) is not None else ""
            for key, (_, digits) in columns.items()
        ]
        form = name if name == "astrea" else ablation_title(name)
        rows.append(f"| {form} | {row['seeds']} | {' | '.join(found)} |")
    return "\n".join(rows)


def trials_part(arena: dict[str, Any]) -> str:
    """The section on learning rates; empty where there was no sweep."""
    tried = arena.get("trials")
    if not tried:
        return ""
    rows = [
        "## Learning rates tried\n",
        "Average on the validation split with 0.5 to 4 times the initial learning rate of each strategy; one seed.",
        "The best of a finished row is bold; *used* is what the runs above were trained with.\n",
        f"| strategy | {' | '.join(f'x{factor}' for factor in FACTORS)} | used |",
        f"| --- | {'---: | ' * (len(FACTORS) + 1)}".rstrip(),
    ]
    for name, row in tried.items():
        found = ["" if rate is None else f"{rate:.1f}" for rate in map(row["rates"].get, FACTORS)]
        found = [f"**{each}**" if factor == row["best"] else each for factor, each in zip(FACTORS, found, strict=True)]
        rows.append(f"| {name} | {' | '.join(found)} | {'x' + row['used'] if row['used'] else ''} |")
    return "\n".join(rows)


def wall_table(arena: dict[str, Any]) -> str:
    """The best others, given as much training time as Astrea took."""
    rows = [
        "| strategy | average | seeds | minus Astrea (95 %) | steps | training seconds | Astrea's |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in arena["equal_wall"].items():
        rows.append(
            f"| {name} | {spread(row['average'])} | {row['average']['seeds']} | {gap(row['difference'])} | "
            f"{row['steps']} | {row['wall_s']:.0f} | {row['astrea_wall_s']:.0f} |"
        )
    return "\n".join(rows)


def curves_line(arena: dict[str, Any]) -> str:
    """Where Astrea is when sequence concat is done, and when it first was at least as good, seed by seed."""
    ours, theirs = arena["curves"]["astrea"], arena["curves"]["sequence_concat"]
    found = []
    for seed in sorted(set(ours) & set(theirs)):
        end, wanted = theirs[seed][-1]
        there = [score for seconds, score in ours[seed] if seconds <= end][-1]
        first = next((seconds for seconds, score in ours[seed] if score >= wanted), None)
        passed = "never that good" if first is None else f"first that good after {first:.0f} s"
        found.append(f"seed {seed}: {wanted:.1f} after {end:.0f} s, Astrea by then {there:.1f}, {passed}")
    return f"Sequence concat's end on the curves' small validation set ({'; '.join(found)})."


def adaptivity_line(measured: dict[str, Any]) -> str:
    """What the gate weights of a finished model say and save, in sentences."""
    found, saved = measured["calibration"], measured["saving"]
    return (
        f"On {sum(measured['items'].values()):,} items: average {measured['average']:.1f}; largest load over the mean "
        f"{measured['load_max_over_mean']:.2f}; calibration {found['rank_correlation']:.2f}, {found['relative']:.2f} "
        f"relative, {found['per_task']:.2f} per task. Reading {saved['tokens_share']:.0%} of the tokens changes the "
        f"average by {saved['difference']:+.1f} ± {saved['standard_error']:.1f}. {broken_line(measured)} "
        f"({measured['broken_items_per_task']} items per task)."
    )


def equal_shares_line(measured: dict[str, Any]) -> str:
    """What a finished concat of equal weights scores and survives, in sentences."""
    return f"On the same items: average {measured['average']:.1f} with all tokens. {broken_line(measured)}."


def broken_line(measured: dict[str, Any]) -> str:
    """What broken experts cost a finished model, without a full stop."""
    broken = measured["broken"]
    return (
        f"An expert that describes another picture costs {broken['swapped']:.1f} points, one that always describes "
        f"the same one {broken['frozen']:.1f}, one that is stuck {broken['constant']:.1f}, one that is not a number "
        f"{broken['nan']:.1f}, one that is masked {measured['masked']:.1f}"
    )


def fewer_tokens_table(measured: dict[str, Any]) -> str:
    """Astrea with all and with few visual tokens against concat of equal weights with all of them."""
    rows = [
        "| variant | tokens read | average | seeds | minus equal weights with all tokens (95 %) |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in measured["contestants"].items():
        form = name if name == "astrea" else ablation_title(name)
        for way, share in (("all", 1.0), ("fewer", row["tokens_share"])):
            if way in row:
                against = "" if way == "all" and name == "allocator" else gap(row[way].get("minus_equal"))
                rows.append(f"| {form} | {share:.0%} | {spread(row[way])} | {row['seeds']} | {against} |")
    return "\n".join([*rows, "", f"{sum(measured['items'].values()):,} items."])


def estimate_tables(estimated: dict[str, Any]) -> str:
    """What each of the larger recipes takes, stage by stage."""
    tables = []
    for name, found in estimated["recipes"].items():
        every, learns = (sum(part[key] for part in found["parameters"].values()) for key in ("total", "trainable"))
        tables.append(
            f"**{name}**: {short_count(every)} parameters, {short_count(learns)} of them trained; encoding a picture "
            f"with all experts takes {short_count(found['look_flops_per_picture'])}FLOP.\n\n"
            "| stage | micro-batch | FLOP per sample | peak memory | smallest GPU | seconds per 1,000 samples |\n"
            "| --- | ---: | ---: | ---: | --- | ---: |"
        )
        for stage in found["stages"]:
            gpu, seconds = stage["smallest_gpu"], stage["seconds_per_1000_samples"]
            tables[-1] += (
                f"\n| {stage['name']} | {stage['batch']} | {short_count(stage['step_flops'])} | "
                f"{short_count(stage['peak'])}B | {gpu or 'none'} | {f'{seconds[gpu]:.3g}' if gpu else '-'} |"
            )
    return "\n\n".join(tables)


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the marks of ``name``."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the page has no <!-- {name} --> ... <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


PAGES: dict[str, dict[str, tuple[str | Path, Callable[[dict[str, Any]], str]]]] = {
    "README.md": {
        "tasks": ("quickstart.json", tasks_table),
        "facts": ("quickstart.json", facts),
        "shipped": (BUNDLED_MODEL / CARD, shipped_line),
        "speed": ("train_speed.json", speed_line),
        "neutral": ("arena-neutral/validation.json", neutral_line),
        "arena": ("arena/arena.json", headline),
        "photo": ("photo.json", photo_line),
        "real-photographs": ("real_photographs.json", photographs_line),
    },
    "docs/arena.md": {
        "strategies": ("arena/arena.json", arena_table),
        "adaptivity": ("arena/arena.json", adaptivity_table),
        "trials": ("arena/arena.json", trials_part),
        "variants": ("arena/arena.json", variants_table),
        "wall": ("arena/arena.json", wall_table),
        "curves": ("arena/arena.json", curves_line),
        "e1": ("budgets.json", budgets_table),
        "e2": ("arena-e2/arena.json", conflict_table),
        "e4": ("arena-e4/validation.json", states_table),
        "neutral_strategies": ("arena-neutral/validation.json", arena_table),
        "neutral_variants": ("arena-neutral/validation.json", variants_table),
        "fewer": ("fewer_tokens.json", fewer_tokens_table),
        "full": ("adaptivity.json", adaptivity_line),
        "full_equal": ("adaptivity_equal_shares.json", equal_shares_line),
        "long_strategies": ("arena-long/arena.json", arena_table),
        "long_variants": ("arena-long/arena.json", variants_table),
        "seen": ("seen_and_new.json", seen_table),
        "long_adaptivity": ("arena-long/arena.json", adaptivity_table),
    },
    "docs/estimate.md": {
        "recipes": ("estimate.json", lambda results: estimate_tables(results["estimated"])),
        "run": ("estimate.json", lambda results: whole_run_table(results["run"])),
        "gpu": ("gpu.json", gpu_table),
    },
    "docs/add-an-expert.md": {"join": ("join.json", join_table)},
    "docs/photographs.md": {
        "photo": ("photo.json", photo_table),
        "photo_equal": ("photo.json", photo_equal_table),
        "photo_short": ("photo_short.json", photo_short_table),
        "photo_models": ("photo_models.json", photo_models_table),
        "outside": ("outside_data.json", outside_line),
        "ways": ("ways_of_knowing.json", ways_table),
        "reading": ("reading.json", reading_table),
        "real-photographs": ("real_photographs.json", photographs_table),
    },
    "docs/serving.md": {
        "load": ("serve_load.json", load_table),
        "skip": ("skip_experts.json", skip_table),
        "skip-trained": ("skip_trained.json", skip_table),
    },
}
"""page -> mark -> the file with the results (below `RESULTS`, or a whole path), and what is made of it."""


def filled(page: str) -> str:
    """A page as its results say it."""
    text = (ROOT / page).read_text()
    for mark, (results, content) in PAGES[page].items():
        text = fill(text, mark, content(json.loads((RESULTS / results).read_text())))
    return text


def main() -> None:
    """Fill the pages."""
    for page in PAGES:
        (ROOT / page).write_text(filled(page))


if __name__ == "__main__":
    main()
