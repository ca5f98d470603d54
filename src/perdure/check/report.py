"""Findings as text for people, as JSON for programs, and as SARIF for code hosts and editors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import quote

from .findings import Finding, Hop
from .rules import RULES, Rule
from .search import Report

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def lines(report: Report) -> Iterator[tuple[str, str]]:
    """(part, text) of each line for people; the part is `place`, `why`, `fix` or `way`."""
    for finding in report.findings:
        rule = RULES[finding.rule]
        yield "place", f"{finding.path}:{finding.line}:{finding.column}: {finding.rule}: {finding.message}"
        yield "why", f"    why: {rule.why}"
        yield "fix", f"    fix: {rule.fix}"
        if len(finding.chain) > 1:
            yield "way", f"    way: {' → '.join(map(show_hop, finding.chain))}"


def show_hop(hop: Hop) -> str:
    """`price (shop/prices.py:12)`."""
    return f"{hop.function} ({hop.path}:{hop.line})"


def as_json(report: Report) -> dict[str, object]:
    """All that was found, as plain values."""
    return {
        "files": report.files,
        "workflows": report.workflows,
        "steps": report.steps,
        "findings": [_finding(finding) for finding in report.findings],
        "unreadable": [{"path": path, "reason": reason} for path, reason in report.unreadable],
    }


def _finding(finding: Finding) -> dict[str, object]:
    rule = RULES[finding.rule]
    return {
        "rule": finding.rule,
        "path": finding.path,
        "line": finding.line,
        "column": finding.column,
        "end_line": finding.end_line,
        "end_column": finding.end_column,
        "message": finding.message,
        "why": rule.why,
        "fix": rule.fix,
        "chain": [
            {"function": hop.function, "path": hop.path, "line": hop.line, "column": hop.column}
            for hop in finding.chain
        ],
    }


def as_sarif(report: Report, *, version: str) -> str:
    """A SARIF 2.1.0 log of one run; `version` is that of this library."""
    used = list(RULES.values())
    numbers = {rule.id: number for number, rule in enumerate(used)}
    driver = {"name": "perdure", "version": version, "rules": [_sarif_rule(rule) for rule in used]}
    notes = [
        {"level": "error", "message": {"text": f"{path} cannot be read: {reason}."}}
        for path, reason in report.unreadable
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": not notes, "toolExecutionNotifications": notes}],
        "results": [_sarif_result(finding, numbers[finding.rule]) for finding in report.findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _sarif_rule(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.fix},
        "defaultConfiguration": {"level": "error"},
    }


def _sarif_result(finding: Finding, number: int) -> dict[str, object]:
    result: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": number,
        "level": "error",
        "message": {"text": f"{finding.message} {RULES[finding.rule].fix}"},
        "locations": [{"physicalLocation": _sarif_place(finding)}],
    }
    if len(finding.chain) > 1:
        steps = [{"location": _sarif_hop(hop)} for hop in finding.chain]
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    return result


def _sarif_place(finding: Finding) -> dict[str, object]:
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    return {"artifactLocation": {"uri": _uri(finding.path)}, "region": region}


def _sarif_hop(hop: Hop) -> dict[str, object]:
    region = {"startLine": hop.line, "startColumn": hop.column}
    place = {"artifactLocation": {"uri": _uri(hop.path)}, "region": region}
    return {"physicalLocation": place, "message": {"text": hop.function}}


def _uri(path: str) -> str:
    return f"file://{quote(path)}" if path.startswith("/") else quote(path)
