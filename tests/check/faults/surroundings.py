"""The environment, files, processes and the network."""

import asyncio
import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
from os import environ, getenv
from pathlib import Path

from perdure import step, workflow

ROOT = Path("/srv/shop")


@step
async def note(text: str) -> None: ...


@workflow
async def reads_a_variable() -> str:
    return os.environ["SHOP"]  # expect: environment


@workflow
async def reads_a_variable_by_name() -> str:
    return environ.get("SHOP", "")  # expect: environment


@workflow
async def asks_for_a_variable() -> None:
    if getenv("DEBUG"):  # expect: environment
        await note("debug")


@workflow
async def asks_who_runs() -> str:
    return f"{platform.node()}:{os.getpid()}"  # expect: environment, environment


@workflow
async def looks_at_arguments() -> int:
    return len(sys.argv)  # expect: environment


@workflow
async def opens_a_file(path: str) -> str:
    with open(path) as file:  # expect: file
        return file.read()


@workflow
async def reads_a_path(name: str) -> str:
    return (ROOT / name).read_text()  # expect: file


@workflow
async def takes_a_path(place: Path) -> bool:
    return place.parent.exists()  # expect: file


@workflow
async def lists_a_folder() -> list[str]:
    return os.listdir("/srv")  # expect: file


@workflow
async def copies(source: str) -> None:
    shutil.copy(source, "/tmp/copy")  # expect: file


@workflow
async def makes_a_folder() -> str:
    return tempfile.mkdtemp()  # expect: file


@workflow
async def asks_a_database() -> int:
    connection = sqlite3.connect("shop.db")  # expect: file
    return connection.execute("SELECT 1").fetchone()[0]  # expect: file


@workflow
async def runs_a_program() -> int:
    return subprocess.run(["true"], check=True).returncode  # expect: process


@workflow
async def starts_a_program() -> None:
    process = await asyncio.create_subprocess_exec("true")  # expect: process
    await process.wait()


@workflow
async def fetches(url: str) -> bytes:
    return urllib.request.urlopen(url).read()  # expect: network


@workflow
async def connects() -> None:
    reader, writer = await asyncio.open_connection("localhost", 80)  # expect: network
    writer.close()


@workflow
async def asks_the_host_name() -> str:
    return socket.gethostname()  # expect: environment
