"""Tables of `readme.py` that are made from one result file each."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from astrea.estimate.table import short_count
from astrea.experts.corruption_names import GROUPS
from astrea.world.photographs.templates import NEW_THINGS
from astrea.world.scenes.questions import VQA_TASKS


def spread(row: dict[str, Any], digits: int = 1) -> str:
    """Mean, and deviation over seeds where there is one."""
    return f"{row['mean']:.{digits}f}" + ("" if row["std"] is None else f" ± {row['std']:.{digits}f}")


def gap(apart: dict[str, Any] | None) -> str:
    """A difference to Astrea and its interval; empty where it was not measured."""
    if not apart:
        return ""
    return f"{apart['mean']:+.1f}" + ("" if apart["low"] is None else f" ({apart['low']:+.1f} to {apart['high']:+.1f})")


def gpu_table(measured: dict[str, Any]) -> str:
    """What a real GPU did, one way per row."""
    rows = [
        f"{measured['device']}, torch {measured['machine']['torch']}:\n",
        "| language model, features, pictures per step | samples/s | tokens/s | share of bf16 rate | peak memory | "
        "compiled in |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for way, row in measured["ways"].items():
        share, took = row.get("share_of_datasheet_bf16"), row["seconds_compiling"]
        rates = f"{row['samples_per_second']:.1f} | {row['tokens_per_second']:,.0f}"
        optional = ("" if share is None else f"{share:.1%}", "" if took is None else f"{took:.0f} s")
        rows.append(f"| {way} | {rates} | {optional[0]} | {short_count(row['peak_bytes'])}B | {optional[1]} |")
    return "\n".join(rows)


KNOWN_FAULTS = frozenset(GROUPS["another_picture"] + GROUPS["stuck"])
"""Kinds of faults that the reliability head is trained on unless a recipe names others, and ones alike."""


def conflict_table(arena: dict[str, Any]) -> str:
    """Setting E2: experts that disagree, faults of kinds that training knows and doesn't, and what weights follow."""
    rows = [
        "| variant | average | seeds | minus Astrea (95 %) | where experts disagree | where they agree "
        "| a known fault costs, there | believed "
        "| an unknown fault costs, there | believed | cells | items | picture |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, part in (("strategy", "strategies"), ("ablation", "ablations")):
        for name, row in arena[part].items():
            report = arena["reports"][f"{kind}/{name}"]
            split, weights, apart = report["conflict"], report["gate_weights"], row["difference"]
            mean = row if kind == "ablation" else row["average"]
            followed = (
                [weights["rank_correlation"], weights["items"]["rank_correlation"], weights["picture_share"]]
                if weights
                else [None] * 3
            )
            cells = [
                f"{name} | {spread(mean)} | {mean['seeds']} | {'' if name == 'astrea' else gap(apart)}",
                f"{split['conflict']:.1f} | {split['agreement']:.1f}",
                *(fault_cells(report["faults"], known) for known in (True, False)),
                " | ".join("" if value is None else f"{value:.2f}" for value in followed),
            ]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def fault_cells(faults: dict[str, Any], known: bool) -> str:
    """What faults of known or of unknown kinds cost on average, on all questions and where experts disagree then, and
    which part of the faulty is believed."""
    rows = [
        row
        for kind, experts in faults.items()
        if kind != "clean" and (kind in KNOWN_FAULTS) == known
        for row in experts.values()
    ]
    loss = fmean(row["loss"] for row in rows)
    there = fmean(row["conflict_loss"] for row in rows if row["conflict_loss"] is not None)
    believed = [row["believed"] for row in rows if row["believed"] is not None]
    return f"{loss:.1f}, {there:.1f} | " + (f"{100 * fmean(believed):.0f} %" if believed else "")


def states_table(arena: dict[str, Any]) -> str:
    """Setting E4: states that alignment brought to words, states that nothing did, in the same time, and names."""
    rows = ["| experts give | average | seeds | minus Astrea (95 %) |", "| --- | ---: | ---: | ---: |"]
    ours, names = arena["strategies"]["astrea"]["average"], arena["ablations"]
    unaligned = arena["equal_wall"]["unaligned"]
    told = [
        ("states, aligned: Astrea", ours, None),
        (f"states, not aligned, {unaligned['steps']} steps in all", unaligned["average"], unaligned["difference"]),
        ("names", names["with_names"], names["with_names"]["difference"]),
    ]
    for what, mean, apart in told:
        rows.append(f"| {what} | {spread(mean)} | {mean['seeds']} | {gap(apart)} |")
    return "\n".join(rows)


def photo_table(measured: dict[str, Any]) -> str:
    """What the recipe `photo` learned of the tasks, and of things that training never shows."""
    found = measured["variants"]["photo"]
    rows = [f"| {name} | {row['score']:.1f} | {row['blind']:.1f} |" for name, row in found["tasks"].items()]
    mean = f"| **average** | **{found['average']:.1f}** | **{found['blind_average']:.1f}** |"
    new = {what: f"{row['score']:.0f} % of {row['n']}" for what, row in found["new_things"].items()}
    return "\n".join(
        [
            "| task | score | blind |",
            "| --- | ---: | ---: |",
            *rows,
            mean,
            "",
            "Of things that training never showed it says rightly whether they are there in "
            f"{new['existence']} questions, where in {new['place']}, and their name in {new['name']}.",
        ]
    )


def photo_line(measured: dict[str, Any]) -> str:
    """What the recipe `photo` learned, in a sentence."""
    found = measured["variants"]["photo"]
    tasks = found["tasks"]
    worst = min(VQA_TASKS, key=lambda name: tasks[name]["score"])
    minutes = sum(found["seconds"].values()) / 60
    score, blind = found["vqa_average"], found["vqa_blind_average"]
    return (
        f"After {minutes:.0f} minutes of training (pictures encoded before) on two cores, one seed, a run scores "
        f"{score:.1f} on eight tasks of questions about new compositions of the things that it was shown, {blind:.1f} "
        f"without the picture "
        f"(worst in {worst}: {tasks[worst]['score']:.1f}). In as much time a run without the stage of alignment scores "
        f"{measured['variants']['unaligned']['vqa_average']:.1f}, and one in which the language model reads the "
        f"experts' findings as text {measured['variants']['written']['vqa_average']:.1f}."
    )


def photo_short_table(measured: dict[str, Any]) -> str:
    """What the alignment is worth in the same time, in short runs: means over seeds, and what each seed gains."""
    seeds = measured["seeds"]
    told = {"photo": "as it is", "unaligned": "without alignment, its time for more of `tune`"}
    rows = ["| run | tune steps | eight tasks of questions | captions | retrieval | known names | average |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    columns = {name: [_short_figures(runs[name]) for runs in seeds.values()] for name in told}
    for name, found in columns.items():
        steps = fmean(runs[name]["steps"]["tune"] for runs in seeds.values())
        means = [fmean(column) for column in zip(*found, strict=True)]
        rows.append(f"| {told[name]} | {steps:.0f} | " + " | ".join(f"{mean:.1f}" for mean in means) + " |")
    gains = [
        [one - other for one, other in zip(*pair, strict=True)]
        for pair in zip(columns["photo"], columns["unaligned"], strict=True)
    ]
    each = [", ".join(f"{gain:+.1f}" for gain in column) for column in zip(*gains, strict=True)]
    rows.append("| what alignment gains, seed by seed | | " + " | ".join(each) + " |")
    blind = [fmean(runs["photo"][key] for runs in seeds.values()) for key in ("vqa_blind_average", "blind_average")]
    rows.append(f"| blind | | {blind[0]:.1f} | | | | {blind[1]:.1f} |")
    return "\n".join(rows)


def photo_equal_table(measured: dict[str, Any]) -> str:
    """Whole runs of equal length: as the recipe is, without alignment, and with findings written out as text."""
    told = {
        "photo": "as it is",
        "unaligned": "without alignment, its time for more of `tune`",
        "written": "findings written out as text, nothing of experts learns",
    }
    rows = [
        "| run | tune steps | eight tasks of questions | captions | retrieval | known names | all twelve | new names |"
    ]
    rows.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, words in told.items():
        found = measured["variants"][name]
        figures = [*_short_figures(found), found["new_things"]["name"]["score"]]
        rows.append(f"| {words} | {found['steps']['tune']} | " + " | ".join(f"{each:.1f}" for each in figures) + " |")
    blind = measured["variants"]["photo"]
    rows.append(f"| blind | | {blind['vqa_blind_average']:.1f} | | | | {blind['blind_average']:.1f} | |")
    return "\n".join(rows)


def photo_models_table(measured: dict[str, Any]) -> str:
    """Models for photographs on the same validation questions."""
    rows = ["| model | eight tasks | new: existence | new: place | new: name |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, found in measured["models"].items():
        figures = (found["average"], *(found["new"][kind] for kind in ("existence", "place", "name")))
        rows.append(f"| {name} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(rows)


def _short_figures(found: dict[str, Any]) -> tuple[float, ...]:
    """Questions, captions, retrieval, known names, all twelve."""
    captions, retrieval = (
        fmean(row["score"] for task, row in found["tasks"].items() if task.startswith(kind))
        for kind in ("caption", "retrieval")
    )
    return found["vqa_average"], captions, retrieval, found["naming"]["score"], found["average"]


def budgets_table(measured: dict[str, Any]) -> str:
    """Setting E1: what each rule keeps at each budget of tokens and experts, on test pictures."""
    rules = {"first_k": "first k", "random": "random", "fixed_top_k": "fixed top k", "gate": "**the gate**"}
    rows = [
        "| model | tokens / experts | " + " | ".join(rules.values()) + " | the gate's part of the FLOPs, of the time |",
        "| --- | --- |" + " ---: |" * (len(rules) + 1),
    ]
    for model, budgets in measured["splits"]["test"].items():
        rows.append(f"| {model} | all | | | | {budgets['all']['average']:.1f} | 1, 1 |")
        for budget, row in budgets.items():
            if "/" in budget:
                figures = " | ".join(f"{row[rule]['average']:.1f}" for rule in rules)
                costs = ", ".join(f"{row['gate'][cost]:.2f}" for cost in ("flops_share", "seconds_share"))
                rows.append(f"| | {budget.replace('/', ' / ')} | {figures} | {costs} |")
    return "\n".join(rows)


def photographs_line(measured: dict[str, Any]) -> str:
    """How much of what it says of photographs that are no compositions is right."""
    asked, right = measured["asked"], measured["right"]
    asked_of = f"Of {asked} questions about five photographs that are no compositions"
    return f"{asked_of} the model in the package answers {right} rightly."


def outside_line(measured: dict[str, Any]) -> str:
    """What a model learned from pictures that are not the world's, beside a probe on the same features."""
    model, probe = measured["model"], measured["probe"]
    return (
        f"On {measured['records']['test']} records with other emoji it names {model['kinds']:.0f} % of "
        f"{len(measured['kinds'])} kinds rightly ({model['kinds_blind']:.0f} % without the picture) and "
        f"{model['yes_no']:.0f} % of yes and no ({model['yes_no_blind']:.0f} %); "
        f"the probe names {probe['kinds']:.0f} %. So it reaches {measured['share_of_probe']:.0f} % of the probe."
    )


def photographs_table(measured: dict[str, Any]) -> str:
    """What a model says of photographs that are no compositions, as it comes."""
    rows = [
        f"| {name} | {row['question']} | {row['answer']} | {'yes' if row['right'] else 'no'} |"
        for name, rows in measured["pictures"].items()
        for row in rows
    ]
    head = ["| photograph | question | answer | right |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, "", f"{measured['right']} of {measured['asked']} are right."])


WAYS = {
    "both": "features and own words, strange features left out",
    "always both": "features and own words",
    "features": "features alone",
    "words": "own words alone",
}


def ways_table(measured: dict[str, Any]) -> str:
    """What features and own words each know, of things that training shows and of others."""
    head = "| what is read | " + " | ".join(f"{kind}: {of}" for kind in ("seen", "new") for of in NEW_THINGS) + " |"
    rows = [head, "| --- |" + " ---: |" * (2 * len(NEW_THINGS))]
    for way, title in WAYS.items():
        scores = [measured["ways"][way][kind][of]["score"] for kind in ("seen", "new") for of in NEW_THINGS]
        rows.append(f"| {title} | " + " | ".join(f"{score:.0f}" for score in scores) + " |")
    return "\n".join(rows)


PAGE_WAYS = {
    "as trained": "as trained: one line of six word pieces",
    "no tiles": "{lines} lines of {pieces} word pieces",
    "tiles": "the same with up to {tiles} tiles",
    "tiles, without the reader": "the same, without the expert that reads",
    "blind": "without the picture",
}


def reading_table(measured: dict[str, Any]) -> str:
    """Whether signs and pages are read."""
    signs = measured["signs"]["scores"]
    count = signs["all experts"]["n"]
    rows = [f"| {count} signs in compositions | exact, % | words in common, % |", "| --- | ---: | ---: |"]
    rows += [f"| {way} | {row['exact']:.0f} | {row['words']:.0f} |" for way, row in signs.items()]
    line, word = (measured["pages"]["tiles"][kind]["n"] for kind in ("line", "word"))
    rows += [
        "",
        f"| {line} pages | a line, exact, % | words in common, % | is a word there ({word} questions), % | "
        "lines that the expert reads exactly, % |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for way, title in PAGE_WAYS.items():
        found = measured["pages"][way]
        read = (
            "" if way in ("tiles, without the reader", "blind") else f"{found['lines read by the expert']['exact']:.0f}"
        )
        figures = f"{found['line']['exact']:.0f} | {found['line']['words']:.0f} | {found['word']['exact']:.0f} | {read}"
        rows.append(f"| {title.format(**measured['options'])} | {figures} |")
    said = [
        f"* {name}, {'with' if way == 'tiles' else 'without'} tiles: {page['rows'][0]['answer'] or '(nothing)'}"
        for way in ("no tiles", "tiles")
        for name, page in measured["pages"][way]["pages"].items()
    ]
    return "\n".join([*rows, "", "What it says that the pages say:", "", *said])


SEEN_WAYS = {
    "features": "features alone",
    "words": "own words alone",
    "both": "both",
    "choice": "the allocator's choice",
}
SEEN_CELLS = tuple(f"{kind}, {shift}" for kind in ("seen", "new") for shift in ("clean", "shifted"))


def seen_table(measured: dict[str, Any]) -> str:
    """Setting E5: what the choice between features and own words is worth."""
    rows = ["| what is read | " + " | ".join(SEEN_CELLS) + " | mean |", "| --- |" + " ---: |" * (len(SEEN_CELLS) + 1)]
    for way, title in SEEN_WAYS.items():
        scores = measured["scores"][way]
        cells = [" / ".join(f"{scores[f'{cell}, {what}']:.0f}" for what in NEW_THINGS) for cell in SEEN_CELLS]
        rows.append(f"| {title} | " + " | ".join(cells) + f" | {measured['means'][way]:.1f} |")
    gain, choices = measured["difference"], measured["choices"]
    right = ", ".join(f"{cell} {choices[cell]['right']:.0f} % of {choices[cell]['things']}" for cell in SEEN_CELLS)
    return "\n".join(
        [
            *rows,
            "",
            f"The choice against {SEEN_WAYS[measured['best_other']]}, the best of the others: {gain['mean']:+.1f} "
            f"points ({gain['low']:+.1f} to {gain['high']:+.1f}, {gain['over']}). It was right for {right} things with "
            "a finding.",
        ]
    )


def join_table(joined: dict[str, Any]) -> str:
    """What an added expert has changed, and what it says of photographs."""
    rows = ["| task | before | after | moved | error |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, row in [*joined["tasks"].items(), ("**average**", joined["average"])]:
        figures = f"{row['before']:.1f} | {row['after']:.1f} | {row['moved']:+.1f} | {row['standard_error']:.1f}"
        rows.append(f"| {name} | {figures} |")
    said = []
    for photo, row in joined["photographs"].items():
        tags = ", ".join(f"{tag} {score:.2f}" for tag, score in row["tags"].items())
        said.append(f"* `{photo}`: {tags}; a gate weight of {row['share']:.2%}")
    of_what = "For photographs of scikit-image, at the 64 pixels that this model uses, the added expert says:"
    return "\n".join([*rows, "", of_what, "", *said])


WORKLOADS = {"describe": "descriptions", "ask": "short answers", "ask again": "second questions about a picture"}


def load_table(results: dict[str, Any]) -> str:
    """How many answers a second a server gives to one client and to many."""
    measured = results["load"]
    many = next(key for key in measured["describe"] if key.endswith("_clients"))
    rows = [
        "| | one by one, a second | all at once, a second | times as many | first token, p50: alone, at once |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, title in WORKLOADS.items():
        row = measured[name]
        alone, together = row["one_by_one"], row[many]
        rates = f"{alone['answers_per_second']:.1f} | {together['answers_per_second']:.1f}"
        first = f"{alone['ttft_ms']['p50']:.0f} ms, {together['ttft_ms']['p50']:.0f} ms"
        rows.append(f"| {title} | {rates} | {row['times_as_many_per_second']:.1f} | {first} |")
    return "\n".join(rows)


def skip_table(results: dict[str, Any]) -> str:
    """What it costs and gains to skip experts, for every threshold."""
    heads = (
        "| `--skip-below` | `--skip-sure` | experts run | vision, times as fast | reading, times as long | average |"
    )
    rows = [heads, "| --- | --- | ---: | ---: | ---: | ---: |"]
    first = results["rows"][0]
    for row in results["rows"]:
        below, _, sure = row["below"].partition(":")
        faster = "" if row is first else f"{row['times_faster']:.2f}"
        longer = "" if row is first else f"{row['reading_seconds'] / first['reading_seconds']:.2f}"
        rows.append(f"| {below} | {sure} | {row['run']:.0%} | {faster} | {longer} | {row['average']:.1f} |")
    return "\n".join(rows)


def whole_run_table(run: dict[str, Any]) -> str:
    """Estimated and measured memory of each phase of a whole run."""
    heads = "| phase | estimated | measured | ratio | ratio without the libraries |"
    rows = [heads, "| --- | ---: | ---: | ---: | ---: |"]
    for phase, row in run["rows"].items():
        sizes = " | ".join(f"{short_count(row[f'{way}_bytes'])}B" for way in ("estimate", "measured"))
        rows.append(f"| {phase} | {sizes} | {row['ratio']:.2f} | {row['ratio_without_libraries']:.2f} |")
    return "\n".join(rows)
