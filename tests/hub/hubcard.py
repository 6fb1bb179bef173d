"""The Hub's rules for the metadata of a card, those that matter for models of text."""

import re

import yaml


# Of the identifiers that the Hub accepts, those a text project can meet.
LICENSES = set(
    re.findall(
        r"\S+",
        "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
        "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
        "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
        "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
        "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 "
        "gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl mpl-2.0 odc-by "
        "odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr "
        "deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
        "grok2-community gemma apple-ascl apple-amlr unknown other",
    )
)


def split_card(content: str) -> tuple[str | None, str]:
    m = re.match(r"^\ufeff?---[ \t]*\r?\n(.*?)(?:\r?\n)?---[ \t]*(?:\r?\n|$)", content, re.S)
    return (m.group(1), content[m.end() :]) if m else (None, content)


def check_card(content: str, kind: str) -> tuple[dict, list[str], list[str]]:
    """Return metadata, errors and warnings."""
    errors: list[str] = []
    warns: list[str] = []
    raw, _ = split_card(content)
    if raw is None or not raw.strip():
        return {}, errors, ["empty or missing yaml metadata in repo card"]
    try:
        data = yaml.safe_load(raw)
    except yaml.YAMLError as e:
        return {}, [f"YAML Metadata Error: {e}"], warns
    if data is None:
        return {}, errors, ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return {}, ["YAML Metadata Error: must be of type object"], warns

    def strings(field: str, value) -> list[str] | None:
        vals = value if isinstance(value, list) else [value]
        if not all(isinstance(v, str) for v in vals):
            errors.append(f'"{field}" must be a string or an array of strings')
            return None
        return vals

    if data.get("license") is not None:
        for v in strings("license", data["license"]) or []:
            if v not in LICENSES:
                errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES)[:6])}, ...]; got "{v}"')
    if data.get("language") is not None:
        for v in strings("language", data["language"]) or []:
            if not re.match(r"^([a-z]{2,3}(-[A-Za-z]{2,8})*|code|multilingual)$", v):
                errors.append(
                    f'"language" must only contain lowercase ISO 639-1/-2/-3 codes (like "en"), '
                    f'"code" or "multilingual"; got "{v}"'
                )
    for f in ("tags", "datasets", "metrics", "base_model"):
        if data.get(f) is not None:
            vals = strings(f, data[f])
            if f in ("datasets", "base_model"):
                for v in vals or []:
                    if not re.match(r"^[\w.-]+(/[\w.-]+)?$", v):
                        errors.append(f'"{f}" with value "{v}" is not valid. Use a model/dataset id from the Hub.')
    for f in ("library_name", "pipeline_tag", "license_name", "license_link"):
        if data.get(f) is not None and not isinstance(data[f], str):
            errors.append(f'"{f}" must be a string')
    if kind == "model" and data.get("model-index") is not None:
        mi = data["model-index"]
        if not isinstance(mi, list):
            errors.append('"model-index" must be an array')
        else:
            for i, m in enumerate(mi):
                if not isinstance(m, dict) or not isinstance(m.get("name"), str) or not m["name"]:
                    errors.append(f'"model-index[{i}].name" is required')
                    continue
                res = m.get("results", [])
                if not isinstance(res, list):
                    errors.append(f'"model-index[{i}].results" must be an array')
                    continue
                for j, r in enumerate(res):
                    at = f"model-index[{i}].results[{j}]"
                    if not isinstance((r.get("task") or {}).get("type"), str):
                        errors.append(f'"{at}.task.type" is required')
                    ds = r.get("dataset") or {}
                    for k in ("type", "name"):
                        if not isinstance(ds.get(k), str):
                            errors.append(f'"{at}.dataset.{k}" is required')
                    mets = r.get("metrics")
                    if not isinstance(mets, list) or not mets:
                        errors.append(f'"{at}.metrics" is required')
                        continue
                    for k, mm in enumerate(mets):
                        if not isinstance(mm.get("type"), str):
                            errors.append(f'"{at}.metrics[{k}].type" is required')
                        if mm.get("value") is None:
                            errors.append(f'"{at}.metrics[{k}].value" is required')
    return data, errors, warns
