"""Names that the Hub knows: licences, languages, tasks, data sets. Others it refuses, or files nowhere."""

import re


# https://huggingface.co/docs/hub/repositories-licenses, those that text and models of text come under.
LICENCES = frozenset(
    re.findall(
        r"\S+",
        "apache-2.0 mit openrail bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0 artistic-2.0 "
        "bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
        "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
        "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl "
        "ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc "
        "mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown other",
    )
)
# https://huggingface.co/tasks, those of our models.
HUB_TASKS = ("translation", "summarization", "text-generation", "text-classification", "multiple-choice")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{2,8})*|code|multilingual")
_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_ADDRESS = re.compile(r"https://[\w.-]+(/[\w./%~+=&?#:@-]*)?", re.ASCII)


def check_hub_names(**given: str | None):
    """Make sure that what is said for the model card is what the Hub takes.

    Args:
        **given: options by name, None where they are not given.

    Raises:
        ValueError: one is not; the message names it, with what would be right.
    """
    for name, value in given.items():
        if value is None:
            continue
        if name == "model_licence" and value not in LICENCES:
            raise ValueError(
                f'model_licence={value!r} must be an identifier of the Hub, such as "apache-2.0" or "cc-by-nc-sa-4.0", or "other": '
                "https://huggingface.co/docs/hub/repositories-licenses lists them."
            )
        if name == "hub_task" and value not in HUB_TASKS:
            raise ValueError(f"hub_task={value!r} must be one of: {', '.join(HUB_TASKS)}.")
        if name == "data_url" and not _ADDRESS.fullmatch(value):
            raise ValueError(f"data_url={value!r} must be an address that begins with https://, without spaces.")


def is_language(code: str) -> bool:
    """Say whether the Hub takes a word for a language: a code of ISO 639 in small letters, with or without a region."""
    return _LANGUAGE.fullmatch(code) is not None


def is_repository(name: str) -> bool:
    """Say whether a word is spelled like a data set or a model on the Hub."""
    return _REPOSITORY.fullmatch(name) is not None and ".." not in name
