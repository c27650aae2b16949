from __future__ import annotations

import json

import pytest

from llava.data.benchmarks.mm_safetybench import Scenario, load_mm_safetybench
from llava.data.benchmarks.selection import Selection
from llava.data.schema import ImageType
from llava.errors import InputError
from tests.data.layouts import mm_row, write_mm_safetybench

FRAUD, LEGAL = "06-Fraud", "10-Legal_Opinion"


def test_scenarios_have_the_benchmarks_spelling():
    assert [scenario.value for scenario in Scenario] == [
        "01-Illegal_Activitiy",
        "02-HateSpeech",
        "03-Malware_Generation",
        "04-Physical_Harm",
        "05-EconomicHarm",
        "06-Fraud",
        "07-Sex",
        "08-Political_Lobbying",
        "09-Privacy_Violence",
        "10-Legal_Opinion",
        "11-Financial_Advice",
        "12-Health_Consultation",
        "13-Gov_Decision",
    ]


def test_each_image_type_gets_its_own_text_and_image(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    questions = {q.image_type: q for q in load_mm_safetybench(tmp_path).questions}
    row = mm_row(f"{FRAUD} 0")
    assert {kind: q.prompt for kind, q in questions.items()} == {
        ImageType.TEXT: row["Question"],
        ImageType.SD: row["Rephrased Question(SD)"],
        ImageType.TYPO: row["Rephrased Question"],
        ImageType.SD_TYPO: row["Rephrased Question"],
    }
    assert questions[ImageType.TEXT].image is None
    for kind in ("SD", "TYPO", "SD_TYPO"):
        assert questions[ImageType(kind)].image == str(tmp_path / "imgs" / FRAUD / kind / "0.jpg")
    assert all(q.fields == row and q.harmful and q.benchmark == "mm_safetybench" for q in questions.values())


def test_reference_prompt_changes_typo_alone(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    ours = {q.image_type: q.prompt for q in load_mm_safetybench(tmp_path).questions}
    theirs = {q.image_type: q.prompt for q in load_mm_safetybench(tmp_path, reference_typo_prompt=True).questions}
    assert theirs == {**ours, ImageType.TYPO: ours[ImageType.SD]}
    assert theirs != ours


def test_order_is_scenario_then_id_then_type(tmp_path):
    write_mm_safetybench(tmp_path, {LEGAL: 11, FRAUD: 1})
    questions = load_mm_safetybench(tmp_path).questions
    assert [(q.scenario, q.id) for q in questions[::4]] == [(FRAUD, "0"), *((LEGAL, str(n)) for n in range(11))]
    assert [q.image_type.value for q in questions[:4]] == ["TEXT", "SD", "TYPO", "SD_TYPO"]


@pytest.mark.parametrize("place", ["", "eval_polite", "dataset/coco", "data", "MM-SafetyBench/data"])
def test_data_are_found_below_the_root_and_the_current_folder(tmp_path, monkeypatch, place):
    write_mm_safetybench(tmp_path / place, {FRAUD: 1})
    assert len(load_mm_safetybench(tmp_path).questions) == 4
    assert len(load_mm_safetybench(tmp_path / place / "processed_questions").questions) == 4
    monkeypatch.chdir(tmp_path)
    assert len(load_mm_safetybench().questions) == 4


def test_images_may_lie_under_another_root_or_the_archives_name(tmp_path):
    write_mm_safetybench(tmp_path / "dataset/coco", {FRAUD: 1})
    (tmp_path / "eval_polite").mkdir()
    (tmp_path / "dataset/coco/imgs").rename(tmp_path / "eval_polite/MM-SafetyBench(imgs)")
    benchmark = load_mm_safetybench(tmp_path)
    assert len(benchmark.questions) == 4
    assert benchmark.missing_images == []


@pytest.mark.parametrize("suffix", [".png", ".jpeg"])
def test_other_image_endings_are_found(tmp_path, suffix):
    write_mm_safetybench(tmp_path, {FRAUD: 2}, suffix=suffix)
    assert {q.image[-len(suffix) :] for q in load_mm_safetybench(tmp_path).questions if q.image} == {suffix}


def test_selection(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 3, LEGAL: 3})
    benchmark = load_mm_safetybench(tmp_path, Selection.parse(["10"], ["typo", "SD"], 5))
    assert [(q.id, q.image_type.value) for q in benchmark.questions] == [
        ("0", "SD"),
        ("0", "TYPO"),
        ("1", "SD"),
        ("1", "TYPO"),
        ("2", "SD"),
    ]


def test_a_scenario_that_was_not_asked_for_may_be_broken(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 1, LEGAL: 1})
    (tmp_path / "processed_questions" / f"{LEGAL}.json").write_text("{")
    assert len(load_mm_safetybench(tmp_path, Selection.parse([FRAUD])).questions) == 4
    with pytest.raises(InputError, match=r"10-Legal_Opinion\.json is not valid JSON"):
        load_mm_safetybench(tmp_path)


def test_missing_images_are_reported_and_their_questions_left_out(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 2})
    gone = tmp_path / "imgs" / FRAUD / "TYPO" / "1.jpg"
    gone.unlink()
    benchmark = load_mm_safetybench(tmp_path)
    assert benchmark.missing_images == [str(gone)]
    assert len(benchmark.questions) == 7
    assert load_mm_safetybench(tmp_path, Selection.parse(image_types=["SD"])).missing_images == []


def test_without_any_image_text_can_be_asked_but_images_cannot(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 2}, images=False)
    assert len(load_mm_safetybench(tmp_path, Selection.parse(image_types=["TEXT"])).questions) == 2
    with pytest.raises(InputError, match=r"all 6 images are missing, such as .*0\.jpg.*README"):
        load_mm_safetybench(tmp_path, Selection.parse(image_types=["SD", "TYPO", "SD_TYPO"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not an object of id"),
        ("{}", "not an object of id"),
        ('{"0": 3}', "id 0 has no text 'Question'"),
        ('{"0": {"Question": "?"}}', "has no text 'Rephrased Question"),
        ('{"0": {"Question": " ", "Rephrased Question": "?", "Rephrased Question(SD)": "?"}}', "no text 'Question'"),
    ],
)
def test_a_file_of_another_shape_is_named(tmp_path, content, message):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    (tmp_path / "processed_questions" / f"{FRAUD}.json").write_text(content)
    with pytest.raises(InputError, match=message) as raised:
        load_mm_safetybench(tmp_path)
    assert "06-Fraud.json" in str(raised.value)


def test_missing_data_say_where_they_belong(tmp_path):
    with pytest.raises(InputError, match=r"no processed_questions in .*README"):
        load_mm_safetybench(tmp_path)
    (tmp_path / "processed_questions").mkdir()
    with pytest.raises(InputError, match="holds no scenario file"):
        load_mm_safetybench(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        load_mm_safetybench(tmp_path / "none")


LISTS = [
    [{"Scenario": FRAUD, "Sampled_ID_List": [2, 0]}, {"Scenario": LEGAL, "Sampled_ID_List": [1]}],
    {FRAUD: ["0", "2"], LEGAL: [1]},
]


@pytest.mark.parametrize("listed", LISTS)
@pytest.mark.parametrize("up", [False, True])
def test_tiny_keeps_the_listed_ids(tmp_path, listed, up):
    root = write_mm_safetybench(tmp_path / "data", {FRAUD: 4, LEGAL: 4})
    (tmp_path if up else root).joinpath("TinyVersion_ID_List.json").write_text(json.dumps(listed))
    questions = load_mm_safetybench(root, tiny=True).questions
    assert [(q.scenario, q.id) for q in questions[::4]] == [(FRAUD, "0"), (FRAUD, "2"), (LEGAL, "1")]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("[1, 2]", "is not a list of"),
        ('[{"Scenario": "06-Fraud"}]', "is not a list of"),
        ('{"06-Fraud": 3}', "is not a list of"),
        ('{"06-Fraud": [99]}', "names id 99 of 06-Fraud"),
        (None, "TinyVersion_ID_List.json does not exist"),
    ],
)
def test_a_bad_tiny_list_is_named(tmp_path, listed, message):
    write_mm_safetybench(tmp_path, {FRAUD: 2})
    if listed is not None:
        (tmp_path / "TinyVersion_ID_List.json").write_text(listed)
    with pytest.raises(InputError, match=message):
        load_mm_safetybench(tmp_path, tiny=True)


def rename(path, name):
    path.rename(path.parent / name)


@pytest.mark.parametrize("name", ["01-Illegal_Activity.json", "1_illegal.json", "illegal activity.json"])
def test_a_scenarios_file_of_another_spelling_is_read(tmp_path, name):
    write_mm_safetybench(tmp_path, {"01-Illegal_Activitiy": 1, FRAUD: 1})
    rename(tmp_path / "processed_questions" / "01-Illegal_Activitiy.json", name)
    rename(tmp_path / "processed_questions" / f"{FRAUD}.json", "06-fraud.json")
    benchmark = load_mm_safetybench(tmp_path)
    assert [q.scenario for q in benchmark.questions[::4]] == ["01-Illegal_Activitiy", FRAUD]
    assert (len(benchmark.questions), benchmark.missing_images, benchmark.notes) == (8, [], [])


def test_other_files_beside_the_scenarios_are_named(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    for name in ("notes.json", "06-Fraud-old.json", "14-More.json", "._06-Fraud.json"):
        (tmp_path / "processed_questions" / name).write_text("{}")
    benchmark = load_mm_safetybench(tmp_path)
    assert len(benchmark.questions) == 4
    assert len(benchmark.notes) == 1
    assert "also holds 06-Fraud-old.json, 14-More.json, notes.json, which" in benchmark.notes[0]


@pytest.mark.parametrize(
    "changes",
    [
        [("imgs", "images")],
        [("imgs", "MM-SafetyBench_imgs")],
        [(f"imgs/{FRAUD}", "06-fraud")],
        [(f"imgs/{FRAUD}/{kind}", kind.lower()) for kind in ("SD", "TYPO", "SD_TYPO")],
        [(f"imgs/{FRAUD}/{kind}/0.jpg", "0.JPG") for kind in ("SD", "TYPO", "SD_TYPO")],
    ],
)
def test_images_of_another_spelling_are_found(tmp_path, changes):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    for path, name in changes:
        rename(tmp_path / path, name)
    benchmark = load_mm_safetybench(tmp_path)
    assert (len(benchmark.questions), benchmark.missing_images) == (4, [])


def test_the_run_stops_when_all_images_of_a_type_are_missing(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 2}, images=False)
    with pytest.raises(InputError, match=r"all 6 images are missing, such as .*0\.jpg.*--image-types TEXT"):
        load_mm_safetybench(tmp_path)
    write_mm_safetybench(tmp_path, {FRAUD: 2})
    rename(tmp_path / "imgs" / FRAUD / "SD", "lost")
    with pytest.raises(InputError, match=r"all 2 SD images are missing.*--image-types TEXT,TYPO,SD_TYPO"):
        load_mm_safetybench(tmp_path)
    assert len(load_mm_safetybench(tmp_path, Selection.parse(image_types=["TYPO"])).questions) == 2


@pytest.mark.parametrize("place", ["data", "MM-SafetyBench/data"])
def test_the_hubs_layout_is_named_for_what_it_is(tmp_path, place):
    folder = tmp_path / place / "Illegal_Activitiy"
    folder.mkdir(parents=True)
    (folder / "SD.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"holds the hub's Parquet files .*SD\.parquet.*README"):
        load_mm_safetybench(tmp_path)


def test_ids_never_lead_out_of_the_image_folder(tmp_path):
    write_mm_safetybench(tmp_path, {FRAUD: 1})
    path = tmp_path / "processed_questions" / f"{FRAUD}.json"
    rows = json.loads(path.read_text())
    names = ["../SD/0", "x" * 300, "a\0b", "..", ""]
    path.write_text(json.dumps({**rows, **dict.fromkeys(names, rows["0"])}))
    benchmark = load_mm_safetybench(tmp_path)
    assert len(benchmark.missing_images) == 3 * len(names)
    assert {q.id for q in benchmark.questions if q.image} == {"0"}


def test_a_tiny_list_of_another_spelling(tmp_path):
    write_mm_safetybench(tmp_path, {"01-Illegal_Activitiy": 2, FRAUD: 2})
    listed = [
        {"Scenario": "01-Illegal_Activity", "Sampled_ID_List": [1]},
        {"Scenario": "fraud", "Sampled_ID_List": [0]},
    ]
    (tmp_path / "TinyVersion_ID_List.json").write_text(json.dumps(listed))
    questions = load_mm_safetybench(tmp_path, tiny=True).questions
    assert [(q.scenario, q.id) for q in questions[::4]] == [("01-Illegal_Activitiy", "1"), (FRAUD, "0")]
    (tmp_path / "TinyVersion_ID_List.json").write_text('{"Robbery": [1]}')
    with pytest.raises(InputError, match="names Robbery, which is no scenario"):
        load_mm_safetybench(tmp_path, tiny=True)


@pytest.mark.parametrize(
    "place",
    [
        *("processed_questions", f"processed_questions/{FRAUD}.json"),
        *("imgs", f"imgs/{FRAUD}", f"imgs/{FRAUD}/SD_TYPO", f"imgs/{FRAUD}/SD/0.jpg"),
    ],
)
def test_what_lies_elsewhere_is_read_through_a_link(tmp_path, place):
    """Images of a shared disk, say; the link keeps the place's name, its target has another."""
    root = write_mm_safetybench(tmp_path / "data", {FRAUD: 2, LEGAL: 1})
    before = load_mm_safetybench(root)
    (root / place).rename(tmp_path / "elsewhere")
    (root / place).symlink_to(tmp_path / "elsewhere")
    assert load_mm_safetybench(root) == before
    assert (len(before.questions), before.missing_images, before.notes) == (12, [], [])
