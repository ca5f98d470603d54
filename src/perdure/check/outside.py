"""What is known of names outside the project: which of them touch the world, and what they give back.

`judge` answers for a dotted name (`time.time`, `pathlib.Path.read_text`) with a
rule's id, or None. A name that is not known is let pass: what is not sure is
not said. Names inside a table end with `.*` when all below them is meant.
"""

from __future__ import annotations

import ast
from functools import cache


def names_in(text: str) -> frozenset[str]:
    """The names that a text lists."""
    return frozenset(text.split())


_OS_FILES = """
        access chdir chmod chown fsync fdatasync ftruncate link listdir lstat makedirs mkdir mkfifo open
        pipe read readlink remove removedirs rename renames replace rmdir scandir stat statvfs symlink
        sync truncate unlink utime walk write copy_file_range sendfile close path.exists path.lexists
        path.isfile path.isdir path.islink path.ismount path.getsize path.getmtime path.getatime
        path.getctime path.abspath path.realpath path.samefile path.expanduser"""
_PATH_FILES = """
        absolute chmod cwd exists expanduser glob group hardlink_to home is_dir is_file is_mount
        is_symlink iterdir lchmod link_to lstat mkdir open owner read_bytes read_text readlink rename
        replace resolve rglob rmdir samefile stat symlink_to touch unlink walk write_bytes write_text"""

_NAMES: dict[str, str] = {
    "clock": """
        time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter time.perf_counter_ns
        time.process_time time.process_time_ns time.thread_time time.localtime time.gmtime time.ctime
        time.asctime datetime.datetime.now datetime.datetime.utcnow datetime.datetime.today
        datetime.date.today django.utils.timezone.now django.utils.timezone.localdate pendulum.now
        pendulum.today arrow.now arrow.utcnow whenever.Instant.now whenever.ZonedDateTime.now
        pandas.Timestamp.now pandas.Timestamp.utcnow""",
    "random": """
        random.* secrets.* os.urandom os.getrandom numpy.random.* random.Random random.SystemRandom
        faker.Faker.*""",
    "uuid": """
        uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.getnode ulid.new ulid.ULID nanoid.generate
        shortuuid.uuid cuid.cuid uuid6.uuid7 uuid_utils.uuid4 uuid_utils.uuid7""",
    "environment": """
        os.environ os.environb os.getenv os.getenvb os.putenv os.unsetenv os.getcwd os.getcwdb os.getpid
        os.getppid os.uname os.cpu_count os.getlogin os.getuid os.getloadavg os.get_terminal_size
        sys.argv platform.* socket.gethostname socket.getfqdn getpass.getuser multiprocessing.cpu_count
        locale.getlocale locale.getpreferredencoding dotenv.* decouple.config""",
    "file": f"""
        builtins.open builtins.input io.open io.FileIO tempfile.* shutil.* glob.* fileinput.* mmap.mmap
        sqlite3.* dbm.* shelve.open zipfile.ZipFile tarfile.open gzip.open bz2.open lzma.open
        linecache.* aiofiles.* aiosqlite.* apsw.Connection apsw.Connection.* importlib.resources.*
        {" ".join(f"os.{name}" for name in _OS_FILES.split())}
        {" ".join(f"pathlib.Path.{name}" for name in _PATH_FILES.split())}""",
    "network": """
        socket.* ssl.* urllib.request.* http.client.* http.server.* smtplib.* ftplib.* imaplib.*
        poplib.* telnetlib.* xmlrpc.* socketserver.* select.* selectors.* asyncio.open_connection
        asyncio.start_server asyncio.open_unix_connection asyncio.start_unix_server
        asyncio.loop.getaddrinfo asyncio.loop.getnameinfo asyncio.loop.create_connection
        asyncio.loop.create_server asyncio.loop.create_datagram_endpoint
        asyncio.loop.create_unix_connection asyncio.loop.create_unix_server asyncio.loop.sock_recv
        asyncio.loop.sock_sendall asyncio.loop.sock_connect asyncio.loop.sock_accept
        asyncio.loop.start_tls webbrowser.*""",
    "process": """
        subprocess.* os.system os.popen os.fork os.execv os.execve os.execvp os.spawnl os.spawnv os.kill
        os.abort os._exit os.wait os.waitpid asyncio.create_subprocess_exec
        asyncio.create_subprocess_shell asyncio.loop.subprocess_exec asyncio.loop.subprocess_shell
        multiprocessing.* signal.signal signal.alarm pty.* sh.*""",
    "library": """
        requests.* httpx.* aiohttp.* urllib3.* boto3.* botocore.* aioboto3.* aiobotocore.* psycopg.*
        psycopg2.* psycopg_pool.* asyncpg.* pymysql.* MySQLdb.* mysql.* aiomysql.* pymongo.* motor.*
        redis.* aioredis.* cassandra.* elasticsearch.* opensearchpy.* kafka.* aiokafka.*
        confluent_kafka.* pika.* aio_pika.* nats.* stripe.* twilio.* sendgrid.* slack_sdk.* openai.*
        anthropic.* google.cloud.* azure.* grpc.* websockets.* websocket.* paramiko.* asyncssh.*
        fabric.* docker.* kubernetes.* celery.* dramatiq.* pyodbc.* oracledb.* duckdb.* snowflake.*
        clickhouse_driver.* influxdb_client.* hvac.* ldap3.* aiosmtplib.* minio.* s3fs.* fsspec.*
        peewee.* tortoise.* sqlalchemy.create_engine sqlalchemy.engine.* sqlalchemy.Engine.*
        sqlalchemy.Connection.* sqlalchemy.ext.asyncio.* sqlalchemy.orm.Session sqlalchemy.orm.Session.*
        sqlalchemy.orm.sessionmaker sqlmodel.Session sqlmodel.Session.* sqlmodel.create_engine
        perdure.Engine perdure.Engine.* perdure.Client perdure.Client.*""",
    "thread": """
        threading.* _thread.* concurrent.futures.* asyncio.to_thread asyncio.run_coroutine_threadsafe
        asyncio.loop.run_in_executor asyncio.loop.set_default_executor asyncio.loop.call_soon_threadsafe
        multiprocessing.pool.* queue.Queue queue.SimpleQueue queue.LifoQueue queue.PriorityQueue
        anyio.to_thread.* anyio.from_thread.* anyio.to_process.* asgiref.sync.* joblib.Parallel""",
    "loop": """
        asyncio.run asyncio.Runner asyncio.new_event_loop asyncio.set_event_loop
        asyncio.set_event_loop_policy asyncio.loop.run_until_complete asyncio.loop.run_forever
        asyncio.loop.stop asyncio.loop.close asyncio.loop.add_reader asyncio.loop.remove_reader
        asyncio.loop.add_writer asyncio.loop.remove_writer asyncio.loop.add_signal_handler
        asyncio.loop.remove_signal_handler asyncio.loop.set_task_factory
        asyncio.loop.set_exception_handler asyncio.loop.set_debug asyncio.loop.connect_read_pipe
        asyncio.loop.connect_write_pipe anyio.run trio.run uvloop.run nest_asyncio.apply""",
    "blocking-sleep": "time.sleep gevent.sleep eventlet.sleep trio.sleep_forever",
}

_PURE: str = """
        random.Random.* numpy.random.Generator.* secrets.compare_digest ssl.match_hostname
        platform.python_version_tuple socket.inet_aton socket.inet_ntoa socket.htons socket.ntohs
        urllib.request.Request urllib.request.pathname2url urllib.request.url2pathname
        subprocess.list2cmdline glob.escape glob.has_magic httpx.URL httpx.QueryParams httpx.Headers
        httpx.Timeout httpx.Limits httpx.Request requests.Request aiohttp.ClientTimeout
        http.client.responses celery.schedules.* openai.types.* anthropic.types.* http.server.HTTPStatus
        sqlite3.Row sqlite3.Binary redis.exceptions.* requests.exceptions.* google.cloud.exceptions.*
        stripe.error.* aiohttp.web.json_response psycopg.sql.* psycopg2.sql.*"""

_SEEDED = (
    "random.Random",
    "numpy.random.default_rng",
    "numpy.random.RandomState",
    "numpy.random.SeedSequence",
)
"""With an argument, these give the same each time."""

_CLOCKS_OF_AN_ARGUMENT = ("time.localtime", "time.gmtime", "time.ctime", "time.asctime")
"""With an argument, these only convert."""

_HARMLESS_ENDS = ("Error", "Exception", "Warning", "Timeout", "Options")

READ_AS_VALUES = frozenset({"os.environ", "os.environb", "sys.argv"})
"""These need no call: to name them is to read them."""

_CANONICAL_ROOTS = {
    "_io": "io",
    "_socket": "socket",
    "posix": "os",
    "nt": "os",
    "posixpath": "os.path",
    "ntpath": "os.path",
    "_random": "random",
    "_asyncio": "asyncio",
    "_thread": "threading",
    "_sqlite3": "sqlite3",
    "typing_extensions": "typing",
    "collections.abc": "typing",
    "_collections_abc": "typing",
    "pathlib._local": "pathlib",
}

AWAITABLE = frozenset(
    {"asyncio.sleep", "asyncio.wait", "asyncio.wait_for", "perdure.start_child", "perdure.Signal.receive"}
)
"""Coroutine functions that do nothing unless they are awaited."""

ORDER_FREE = frozenset(
    f"builtins.{name}"
    for name in ("sorted", "len", "sum", "min", "max", "any", "all", "set", "frozenset", "bool")
) | {"collections.Counter"}
"""What comes out of these does not depend on the order of what goes in."""

ORDERED = frozenset(
    f"builtins.{name}"
    for name in ("list", "tuple", "enumerate", "zip", "iter", "next", "map", "filter", "str", "repr")
) | {
    "asyncio.gather",
    "asyncio.as_completed",
    "collections.deque",
    "itertools.chain",
    "builtins.dict.fromkeys",
}
"""These take a set's elements one after another, in its order."""

MUTATORS = frozenset(
    [
        "append",
        "add",
        "update",
        "extend",
        "insert",
        "remove",
        "discard",
        "pop",
        "popitem",
        "clear",
        "setdefault",
        "sort",
        "reverse",
        "appendleft",
        "popleft",
        "extendleft",
        "intersection_update",
        "difference_update",
        "symmetric_difference_update",
        "subtract",
    ]
)
"""Methods of lists, dicts and sets that change them."""

SET_MAKERS = frozenset(["union", "intersection", "difference", "symmetric_difference", "copy"])
"""Methods of a set that give a set."""


def canonical(name: str) -> str:
    """One name for what has several: `asyncio.tasks.sleep` and `asyncio.sleep` are the same."""
    root, _, rest = name.partition(".")
    if root == "perdure" and not name.startswith("perdure.testing"):
        parts = name.split(".")
        # `perdure.blocks.signal.Signal.receive`: from the class on, if there is one.
        start = next((n for n, part in enumerate(parts) if part[:1].isupper()), len(parts) - 1)
        return ".".join(["perdure", *parts[max(1, start) :]]) if len(parts) > 1 else name
    if root == "asyncio" and rest.count(".") == 1 and rest.partition(".")[0] in _ASYNCIO_MODULES:
        return f"asyncio.{rest.partition('.')[2]}"
    for before, after in _CANONICAL_ROOTS.items():
        if name == before or name.startswith(f"{before}."):
            return after + name[len(before) :]
    return name


_ASYNCIO_MODULES = frozenset(
    [
        "tasks",
        "locks",
        "queues",
        "runners",
        "threads",
        "streams",
        "subprocess",
        "events",
        "futures",
        "timeouts",
        "taskgroups",
    ]
)


@cache
def _table() -> tuple[dict[str, str], dict[str, str], frozenset[str], tuple[str, ...]]:
    exact: dict[str, str] = {}
    below: dict[str, str] = {}
    for rule, text in _NAMES.items():
        for name in text.split():
            (below if name.endswith(".*") else exact).__setitem__(name.removesuffix(".*"), rule)
    pure = _PURE.split()
    names = frozenset(name for name in pure if not name.endswith(".*"))
    return exact, below, names, tuple(name.removesuffix("*") for name in pure if name.endswith(".*"))


@cache
def _judge(name: str) -> str | None:
    exact, below, pure, pure_below = _table()
    if name in exact:
        return exact[name]
    if name in pure or name.startswith(pure_below) or name.endswith(_HARMLESS_ENDS):
        return None
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        rule = below.get(".".join(parts[:count]))
        if rule is not None:
            return rule
    return None


def judge(name: str, call: ast.Call | None = None) -> str | None:
    """The rule that using this outside name breaks, if any. With `call`, its arguments count too."""
    rule = _judge(name)
    if rule is None or call is None or not (call.args or call.keywords):
        return rule
    if name in _SEEDED and not _is_none(call.args[:1]):
        return None
    return None if name in _CLOCKS_OF_AN_ARGUMENT else rule


def _is_none(args: list[ast.expr]) -> bool:
    return bool(args) and isinstance(args[0], ast.Constant) and args[0].value is None
