"""What `pagestore agents install` writes into the settings of programs that run agents."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from pagestore.cli.agents import branch_of
from pagestore.cli.harnesses import PLACES, Commands, Tool, install, uninstall
from pagestore.errors import FailedPrecondition

COMMANDS = Commands(
    ["/opt/ps bin/pagestore", "mcp", "--data", "/d"],
    ["/opt/ps bin/pagestore", "agents", "hook", "x", "--data", "/d"],
)
OTHER = Commands(["pagestore", "mcp"], ["pagestore", "agents", "hook", "x"])


def everything(project: Path) -> dict[str, str]:
    return {
        str(path.relative_to(project)): path.read_text()
        for path in project.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("tool", Tool)
def test_to_repeat_it_is_harmless_and_to_take_it_away_leaves_nothing(
    tool: Tool, tmp_path: Path
) -> None:
    written = install(tool, tmp_path, COMMANDS)
    places = PLACES[tool]
    assert {str(path.relative_to(tmp_path)) for path in written} == {
        name for name in (places.server, places.hooks, places.skill) if name
    }
    before = everything(tmp_path)
    assert install(tool, tmp_path, COMMANDS) == []
    assert everything(tmp_path) == before
    install(tool, tmp_path, OTHER)
    assert "/opt/ps bin" not in "".join(everything(tmp_path).values()), "the old entry is replaced"
    uninstall(tool, tmp_path)
    assert everything(tmp_path) == {}
    assert uninstall(tool, tmp_path) == []


def test_what_is_in_settings_stays(tmp_path: Path) -> None:
    theirs = {"type": "command", "command": "echo ours agents hook"}
    settings = {
        "permissions": {"allow": ["Bash(ls)"]},
        "hooks": {
            "SubagentStop": [{"matcher": "x", "hooks": [theirs]}],
            "Stop": [{"hooks": [theirs]}],
        },
    }
    servers = {"mcpServers": {"other": {"command": "other", "env": {"K": "ü"}}}}
    (tmp_path / ".claude").mkdir()
    place = tmp_path / ".claude/settings.json"
    place.write_text(json.dumps(settings))
    (tmp_path / ".mcp.json").write_text(json.dumps(servers))
    place.chmod(0o640)
    install(Tool.CLAUDE_CODE, tmp_path, COMMANDS)
    now = json.loads(place.read_text())
    assert place.stat().st_mode & 0o777 == 0o640
    assert now["permissions"] == settings["permissions"]
    assert now["hooks"]["Stop"] == settings["hooks"]["Stop"]
    assert now["hooks"]["SubagentStop"][0] == settings["hooks"]["SubagentStop"][0]
    [ours] = now["hooks"]["SubagentStop"][1]["hooks"]
    assert ours["command"] == "'/opt/ps bin/pagestore' agents hook x --data /d"
    found = json.loads((tmp_path / ".mcp.json").read_text())["mcpServers"]
    assert found["other"] == servers["mcpServers"]["other"]
    assert found["pagestore"] == {
        "command": "/opt/ps bin/pagestore",
        "args": ["mcp", "--data", "/d"],
    }
    uninstall(Tool.CLAUDE_CODE, tmp_path)
    assert json.loads(place.read_text()) == settings
    assert json.loads((tmp_path / ".mcp.json").read_text()) == servers


def test_toml_keeps_its_comments_and_its_order(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    place = tmp_path / ".codex/config.toml"
    text = '# mine\nmodel = "x"  # the best\n\n[mcp_servers.other]\ncommand = "o"\n'
    place.write_text(text)
    install(Tool.CODEX, tmp_path, COMMANDS)
    now = place.read_text()
    assert now.startswith(text.rstrip("\n"))
    servers = tomllib.loads(now)["mcp_servers"]
    assert servers["pagestore"]["args"] == ["mcp", "--data", "/d"]
    assert servers["other"] == {"command": "o"}
    uninstall(Tool.CODEX, tmp_path)
    assert place.read_text().strip() == text.strip()


@pytest.mark.parametrize("text", ["{", "[]", '{"hooks": 1}', '{"hooks": {"SubagentStop": 5}}'])
def test_settings_that_cannot_be_read_are_named_and_nothing_is_written(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/settings.json").write_text(text)
    before = everything(tmp_path)
    with pytest.raises(FailedPrecondition) as caught:
        install(Tool.CLAUDE_CODE, tmp_path, COMMANDS)
    assert caught.value.reason == "SETTINGS_UNREADABLE"
    assert ".claude/settings.json" in caught.value.message
    assert everything(tmp_path) == before


def test_a_skill_says_what_it_is_for() -> None:
    from pagestore.cli.harnesses import SKILL

    head = SKILL.split("---")[1]
    assert "name: pagestore" in head
    assert "description:" in head
    assert len(SKILL) < 2500, "a model reads all of it"


def test_a_branch_is_named_after_its_agent() -> None:
    assert branch_of("a1B2-c3_D4/..") == "agent-a1b2-c3-d4"
    assert branch_of("") == branch_of("///") == ""
    assert len(branch_of("x" * 300)) == 46
