"""The dashboard and the alert rules: they name what nodes export, and alerts come when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from agentmem.core.telemetry import METRICS

FOLDER = Path(__file__).parent.parent / "monitoring"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
# What Prometheus itself makes.
OWN_METRICS = {"up": {"job", "instance"}}
TARGET_LABELS = {"job", "instance"}
WORDS = {
    *("and", "or", "unless", "on", "by", "ignoring", "group_left", "sum", "max", "min", "count", "group"),
    *("rate", "increase", "histogram_quantile", "predict_linear", "label_values", "vector"),
}
TOOL = shutil.which("promtool")


def exported() -> dict[str, set[str]]:
    """The samples that nodes export, and the labels of each."""
    found = {name: set(labels) for name, labels in OWN_METRICS.items()}
    for metric in METRICS:
        name, labels = metric.prometheus_name, {*metric.prometheus_labels, *TARGET_LABELS}
        if metric.kind == "histogram":
            found |= {f"{name}_sum": labels, f"{name}_count": labels, f"{name}_bucket": labels | {"le"}}
        else:
            found[name] = labels
    return found


EXPORTED = exported()


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, with where it stands."""
    for name, rule in ALERTS.items():
        yield name, rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"{panel['title']}: {target['refId']}", target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda value: value[:40])
def test_what_is_asked_for_is_exported(where: str, expression: str) -> None:
    text = re.sub(r'"[^"]*"', '""', expression)
    grouped = {
        label
        for labels in re.findall(r"\b(?:by|on|ignoring) *\(([^)]*)\)", text)
        for label in labels.split(",")
    }
    text = re.sub(r"\b(?:by|on|ignoring) *\([^)]*\)", "", text)
    names = set()
    for name, matchers in re.findall(r"([A-Za-z_]\w*) *\{([^}]*)\}", text):
        names.add(name)
        asked = set(re.findall(r"(\w+) *(?:=~|!~|!=|=)", matchers))
        assert asked <= EXPORTED.get(name, set()), f"{where}: {name} has no label {asked}"
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    if (listed := re.fullmatch(r"label_values\((\w+), *(\w+)\)", text)) is not None:
        assert listed[2] in EXPORTED[listed[1]]
        return
    names |= set(re.findall(r"(?<![\w.])[A-Za-z_]\w*", text)) - WORDS
    assert names <= set(EXPORTED), f"{where}: {names - set(EXPORTED)}"
    assert names
    known = set().union(*(EXPORTED[name] for name in names))
    assert {label.strip() for label in grouped} <= known, where


def test_texts_name_metrics_that_there_are() -> None:
    known = {metric.prometheus_name for metric in METRICS} | set(EXPORTED).union(*EXPORTED.values())
    named = set(re.findall(r"\bagentmem_\w+", (FOLDER / "alerts.yml").read_text(encoding="utf-8")))
    assert named
    assert named <= known


def test_each_thing_that_can_go_wrong_has_an_alert() -> None:
    named = " ".join(rule["expr"] for rule in ALERTS.values())
    for metric in (
        *("agentmem_node_role", "agentmem_search_staleness_seconds", "agentmem_replication_connected"),
        *("rpc_response_status_code", "agentmem_calls_slow_total", "agentmem_store_limit_bytes"),
        *("agentmem_store_disk_free_bytes", "agentmem_event_loop_lag_seconds_bucket", "up{"),
    ):
        assert metric in named
    for name, rule in ALERTS.items():
        assert name.startswith("AgentMem")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on another panel"
                taken.add((x, y))
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]
        assert panel["targets"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        used = set(re.findall(r"\$\{?(\w+)\}?", json.dumps(panel)))
        assert used <= variables | {"__rate_interval"}, panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


GET = 'rpc_method="agentmem.v1.ReaderService/GetMemories"'
SEARCH = 'rpc_method="agentmem.v1.ReaderService/SearchMemories"'
WATCH = 'rpc_method="agentmem.v1.ReaderService/WatchMemories"'
CALLS = "rpc_server_call_duration_seconds_count"
BUCKETS = "rpc_server_call_duration_seconds_bucket"
# A writer and a replica, for forty minutes. A "w" or "r" stands for job and instance.
WELL = {
    "up{w}": "1x40",
    "up{r}": "1x40",
    'agentmem_node_role{w,agentmem_role="writer"}': "1x40",
    'agentmem_node_role{r,agentmem_role="replica"}': "1x40",
    "agentmem_node_serving{w}": "1x40",
    "agentmem_node_serving{r}": "1x40",
    'agentmem_replicas{w,agentmem_state="serving"}': "1x40",
    'agentmem_replicas{w,agentmem_state="draining"}': "0x40",
    "agentmem_replication_connected{r}": "1x40",
    "agentmem_search_staleness_seconds{r}": "0.5x40",
    "agentmem_store_used_bytes{w}": "1000000+1000x40",
    "agentmem_store_file_bytes{w}": "2000000x40",
    "agentmem_store_limit_bytes{w}": "1000000000x40",
    "agentmem_store_disk_free_bytes{w}": "100000000000-1000x40",
    # A memory that does not exist is no error of the server.
    f'{CALLS}{{r,{GET},rpc_response_status_code="NOT_FOUND"}}': "0+6000x40",
    f'{CALLS}{{r,{GET},rpc_response_status_code="UNAVAILABLE"}}': "0+6x40",
    f'{BUCKETS}{{r,{SEARCH},rpc_response_status_code="OK",le="0.1"}}': "0+100x40",
    f'{BUCKETS}{{r,{SEARCH},rpc_response_status_code="OK",le="1.0"}}': "0+101x40",
    f'{BUCKETS}{{r,{SEARCH},rpc_response_status_code="OK",le="+Inf"}}': "0+101x40",
    # A stream takes hours, and that is well.
    f'{BUCKETS}{{r,{WATCH},rpc_response_status_code="OK",le="1.0"}}': "0x40",
    f'{BUCKETS}{{r,{WATCH},rpc_response_status_code="OK",le="+Inf"}}': "0+1000x40",
    'agentmem_calls_slow_total{r,rpc_method="x"}': "0+3x40",
    'agentmem_call_failures_total{r,agentmem_reason="OVERLOADED"}': "0x40",
    'agentmem_commit_sync_duration_seconds_bucket{w,le="0.01"}': "0+100x40",
    'agentmem_commit_sync_duration_seconds_bucket{w,le="1.0"}': "0+100x40",
    'agentmem_commit_sync_duration_seconds_bucket{w,le="+Inf"}': "0+100x40",
    'agentmem_event_loop_lag_seconds_bucket{r,le="0.01"}': "0+240x40",
    'agentmem_event_loop_lag_seconds_bucket{r,le="1.0"}': "0+240x40",
    'agentmem_event_loop_lag_seconds_bucket{r,le="+Inf"}': "0+240x40",
    'agentmem_index_builds_total{r,agentmem_result="failed"}': "0x40",
    # Of somebody else.
    'up{job="other",instance="o"}': "0x40",
}
# What becomes of the series after a quarter of an hour, and whom each alert is about; None: of the whole job.
ILL: Mapping[str, tuple[str | None, Mapping[str, str]]] = {
    "AgentMemNoWriter": (None, {"agentmem_node_serving{w}": "1x15 0x25"}),
    "AgentMemTwoWriters": (
        None,
        {'agentmem_node_role{r,agentmem_role="writer"}': "_x15 1x25"},
    ),
    "AgentMemNodeDown": ("r", {"up{r}": "1x15 0x25"}),
    "AgentMemNoReplica": ("w", {'agentmem_replicas{w,agentmem_state="serving"}': "1x15 0x25"}),
    "AgentMemReplicaCutOff": ("r", {"agentmem_replication_connected{r}": "1x15 0x25"}),
    "AgentMemReplicaLag": ("r", {"agentmem_search_staleness_seconds{r}": "0.5x15 31x25"}),
    "AgentMemErrors": (
        "r",
        {f'{CALLS}{{r,{GET},rpc_response_status_code="UNAVAILABLE"}}': "0x15 0+100x25"},
    ),
    "AgentMemDataLoss": ("r", {f'{CALLS}{{r,{GET},rpc_response_status_code="DATA_LOSS"}}': "_x15 1x25"}),
    "AgentMemOverloaded": (
        "r",
        {'agentmem_call_failures_total{r,agentmem_reason="OVERLOADED"}': "0x15 0+60x25"},
    ),
    "AgentMemSlowSearches": (
        "r",
        {
            f'{BUCKETS}{{r,{SEARCH},rpc_response_status_code="OK",le="1.0"}}': "0+101x15 1515+200x25",
            f'{BUCKETS}{{r,{SEARCH},rpc_response_status_code="OK",le="+Inf"}}': "0+101x15 1515+200x25",
        },
    ),
    "AgentMemSlowQueries": ("r", {'agentmem_calls_slow_total{r,rpc_method="x"}': "0x15 0+600x25"}),
    "AgentMemSlowDisk": (
        "w",
        {'agentmem_commit_sync_duration_seconds_bucket{w,le="0.01"}': "0+100x15 1500+10x25"},
    ),
    "AgentMemEventLoopLag": (
        "r",
        {'agentmem_event_loop_lag_seconds_bucket{r,le="0.01"}': "0+240x15 3600+200x25"},
    ),
    "AgentMemMapNearLimit": ("w", {"agentmem_store_used_bytes{w}": "1000000x15 900000000x25"}),
    "AgentMemDiskFillsUp": (
        "w",
        {
            "agentmem_store_disk_free_bytes{w}": "100000000000-500000000x40",
            "agentmem_store_file_bytes{w}": "60000000000x40",
        },
    ),
    "AgentMemDiskFull": ("w", {"agentmem_store_disk_free_bytes{w}": "100000000000x15 1000000000x25"}),
    "AgentMemIndexBuildsFail": (
        "r",
        {'agentmem_index_builds_total{r,agentmem_result="failed"}': "0x15 1x25"},
    ),
}
LOOK_MINUTES = 40


def series(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"series": re.sub(r"\{(w|r)\b", r'{job="agentmem",instance="\1"', name), "values": text}
        for name, text in values.items()
    ]


def expected(alert: str, instance: str | None) -> dict[str, Any]:
    """The alert, with the labels that the series give it."""
    labels = {"severity": ALERTS[alert]["labels"]["severity"], "job": "agentmem"}
    if instance:
        labels["instance"] = instance
    if alert == "AgentMemNoReplica":
        labels["agentmem_state"] = "serving"
    if alert == "AgentMemIndexBuildsFail":
        labels["agentmem_result"] = "failed"
    return {"exp_labels": labels}


def looks(fires: Mapping[str, str | None]) -> list[dict[str, Any]]:
    return [
        {
            "eval_time": f"{LOOK_MINUTES}m",
            "alertname": alert,
            "exp_alerts": [expected(alert, fires[alert])] if alert in fires else [],
        }
        for alert in ALERTS
    ]


@pytest.mark.skipif(TOOL is None, reason="promtool comes with Debian's package prometheus")
def test_promtool_takes_the_rules() -> None:
    assert TOOL is not None
    done = subprocess.run(
        [TOOL, "check", "rules", str(FOLDER / "alerts.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout
    done = subprocess.run(
        [TOOL, "check", "config", str(FOLDER / "prometheus.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(TOOL is None, reason="promtool comes with Debian's package prometheus")
def test_alerts_come_when_they_should_and_not_without_a_cause(tmp_path: Path) -> None:
    assert TOOL is not None
    assert set(ILL) == set(ALERTS)
    # Their texts are templates, which `check rules` reads; here they would have to be written out.
    bare = {"groups": [dict(group) for group in RULES["groups"]]}
    for group in bare["groups"]:
        group["rules"] = [
            {name: value for name, value in rule.items() if name != "annotations"} for rule in group["rules"]
        ]
    (tmp_path / "alerts.yml").write_text(json.dumps(bare))
    tests = [{"name": "well", "interval": "1m", "input_series": series(WELL), "alert_rule_test": looks({})}]
    for alert, (instance, changes) in ILL.items():
        tests.append(
            {
                "name": alert,
                "interval": "1m",
                "input_series": series({**WELL, **changes}),
                "alert_rule_test": looks({alert: instance}),
            }
        )
    document = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    done = subprocess.run(
        [TOOL, "test", "rules", str(tmp_path / "tests.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
