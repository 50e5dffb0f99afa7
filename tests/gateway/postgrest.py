"""PostgREST at its seam: the statements that Postgres gets from it, and the response that it makes of theirs.

Written from the sources of PostgREST 14 to 17, https://github.com/PostgREST/postgrest, in the
modules below `PostgREST.` that the comments name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.json import Json

from harness.database import Database


class Response(NamedTuple):
    """What PostgREST answers."""

    status: int
    body: Any


class Parameter(NamedTuple):
    name: str
    type: str
    required: bool


class Function(NamedTuple):
    """A function as the schema cache has it."""

    schema: str
    name: str
    comment: str | None
    parameters: list[Parameter]
    composite: bool
    volatility: str
    settings: list[tuple[str, str]]


# SchemaCache.hs, `funcsSqlQuery`, less what concerns domains and sets.
FUNCTIONS = """
with
arguments as (
    select
        oid,
        array_agg((
            coalesce(name, ''),
            type::regtype::text,
            idx <= (pronargs - pronargdefaults)
        ) order by idx) as args,
        case count(*) - count(name)
            when 0 then true
            when 1 then (array_agg(type))[1] in (
                'bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text'::regtype, 'xml'::regtype
            )
            else false
        end as callable
    from pg_proc,
         unnest(proargnames, proargtypes, proargmodes)
             with ordinality as _ (name, type, mode, idx)
    where type is not null
    group by oid
)
select
    pn.nspname,
    p.proname,
    d.description,
    coalesce(to_jsonb(a.args), '[]'),
    t.typtype = 'c' or coalesce(proargmodes::text[] && '{t,b,o}', false),
    p.provolatile::text,
    coalesce(func_settings.kvs, '[]')
from pg_proc p
left join arguments a on a.oid = p.oid
join pg_namespace pn on pn.oid = p.pronamespace
join pg_type t on t.oid = p.prorettype
left join pg_description as d on d.objoid = p.oid and d.classoid = 'pg_proc'::regclass
left join lateral (
    select jsonb_agg(jsonb_build_array(
        substr(setting, 1, strpos(setting, '=') - 1),
        substr(setting, strpos(setting, '=') + 1)
    )) as kvs
    from unnest(proconfig) setting
    where setting ~ any (%s)
) func_settings on true
where t.oid <> 'trigger'::regtype and coalesce(a.callable, true)
and prokind = 'f'
and p.pronamespace = any (%s::regnamespace[])
"""

# Config/Database.hs, `queryRoleSettings`.
ROLE_SETTINGS = """
with
role_setting as (
    select r.rolname, unnest(r.rolconfig) as setting
    from pg_auth_members m
    join pg_roles r on r.oid = m.roleid
    where member = quote_ident(current_user)::regrole::oid
),
kv_settings as (
    select
        rolname,
        substr(setting, 1, strpos(setting, '=') - 1) as key,
        substr(setting, strpos(setting, '=') + 1) as value
    from role_setting
)
select kv.rolname, kv.key, kv.value
from kv_settings kv
join pg_settings ps on ps.name = kv.key and ps.context = 'user'
"""

# Config.hs, `defaultHoistedAllowList`.
HOISTED = ["statement_timeout", "plan_filter.statement_cost_limit", "default_transaction_isolation"]


class PostgREST:
    """A PostgREST in front of a database, with the default configuration and a pool of one connection.

    `schemas` is its `db-schemas`: a request that names none is about the first.
    """

    def __init__(self, db: Database, *schemas: str, anonymous: str = "anon") -> None:
        self._schemas = list(schemas)
        self._anonymous = anonymous
        self.connection = db.connect(user="authenticator", row_factory=tuple_row)
        self.reload()

    def reload(self) -> None:
        """Reads the schema cache, as it does at the start and on `notify pgrst, 'reload schema'`."""
        found = self.connection.execute(FUNCTIONS, (HOISTED, self._schemas)).fetchall()
        settings = self.connection.execute(ROLE_SETTINGS).fetchall()
        self.functions = [
            Function(schema, name, comment, [Parameter(*each.values()) for each in parameters], *rest)
            for schema, name, comment, parameters, *rest in found
        ]
        self._role_settings: dict[str, list[tuple[str, str]]] = {}
        for role, key, value in settings:
            self._role_settings.setdefault(role, []).append((key, value))

    def rpc(
        self,
        function: str,
        body: str | Mapping[str, Any] = "",
        *,
        method: str = "POST",
        role: str | None = None,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """`method /rpc/function` with a JSON body, or for GET with the arguments of its query.

        The role and the claims are those of the JWT that the request came with, already verified.
        """
        role = role or self._anonymous
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        text = body if isinstance(body, str) else json.dumps(body)
        try:
            # ApiRequest/Payload.hs: parsed for its keys only, and passed on as it came.
            keys = set(json.loads(text) if text else {})
        except ValueError:
            return self._failed(400, "PGRST102", "Empty or invalid json")
        schema = headers.get("content-profile" if method == "POST" else "accept-profile", self._schemas[0])
        if schema not in self._schemas:
            return self._failed(406, "PGRST106", f"Invalid schema: {schema}")
        candidates = [each for each in self.functions if (each.schema, each.name) == (schema, function)]
        called = _find(candidates, keys, method)
        if called is None:
            return self._failed(404, "PGRST202", f"Could not find the function {schema}.{function} in the schema cache")
        settings = self._settings(called, role, claims or {}, headers, method)
        try:
            return self._transaction(called, keys, text, settings, method)
        except psycopg.Error as error:
            self.connection.rollback()
            return Response(
                _status(error, is_anonymous=role == self._anonymous),
                {
                    "code": error.sqlstate,
                    "message": error.diag.message_primary,
                    "details": error.diag.message_detail,
                    "hint": error.diag.message_hint,
                },
            )

    def openapi(self) -> dict[str, Any]:
        """What OpenAPI says of the functions: Response/OpenAPI.hs, `makeProcPathItem`."""
        paths = {}
        for function in self.functions:
            summary, _, description = (function.comment or "").partition("\n")
            paths[f"/rpc/{function.name}"] = {
                "summary": summary,
                "description": description.lstrip("\n"),
                "parameters": {each.name: each.type for each in function.parameters},
                "required": [each.name for each in function.parameters if each.required],
            }
        return paths

    def _settings(
        self, called: Function, role: str, claims: Mapping[str, Any], headers: Mapping[str, str], method: str
    ) -> list[tuple[str, str]]:
        """Query/PreQuery.hs, `txVarQuery`, in its order: the function's own come after the role's."""
        cookies = {name: value for name, _, value in (headers.get("cookie", "").partition("="),) if name}
        return [
            ("search_path", f'"{called.schema}", "public"'),
            *self._role_settings.get(role, []),
            ("role", role),
            ("request.jwt.claims", json.dumps({**claims, "role": role})),
            ("request.method", method),
            ("request.path", f"/rpc/{called.name}"),
            ("request.headers", json.dumps({name: value for name, value in headers.items() if name != "cookie"})),
            ("request.cookies", json.dumps(cookies)),
            *called.settings,
        ]

    def _transaction(
        self, called: Function, keys: set[str], text: str, settings: list[tuple[str, str]], method: str
    ) -> Response:
        # Plan.hs, `txMode`; MainTx.hs, `mainTx` and `planIsoLvl`.
        access = "read write" if method == "POST" and called.volatility == "v" else "read only"
        isolation = dict(settings).get("default_transaction_isolation", "read committed")
        settings = [each for each in settings if each[0] != "default_transaction_isolation"]
        execute = self.connection.execute
        execute(f"begin isolation level {isolation} {access}")
        calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
        execute(f"select {calls}", [word for pair in settings for word in pair], prepare=True)
        _, _, body, _, status, _ = execute(*_call(called, keys, text, method), prepare=True).fetchone()
        execute("commit")
        return Response(int(status or 200), json.loads(body))

    @staticmethod
    def _failed(status: int, code: str, message: str) -> Response:
        return Response(status, {"code": code, "message": message, "details": None, "hint": None})


def _find(candidates: list[Function], keys: set[str], method: str) -> Function | None:
    """Plan.hs, `findProc`, for functions that are not overloaded."""
    for function in candidates:
        required = {each.name for each in function.parameters if each.required}
        optional = {each.name for each in function.parameters if not each.required}
        if keys - optional == required:
            return function
    for function in candidates:
        match function.parameters:
            case [Parameter("", "json" | "jsonb", _)] if method == "POST":
                return function
    return None


def _call(called: Function, keys: set[str], text: str, method: str) -> tuple[str, list[Any]]:
    """Query/Statements.hs, `mainCall`, around Query/QueryBuilder.hs, `callPlanToQuery`."""
    name = f'"{called.schema}"."{called.name}"'
    scalar = not called.composite
    given = [each for each in called.parameters if each.name in keys]

    def call(arguments: str) -> str:
        return f"(SELECT {name}({arguments}) pgrst_scalar) pgrst_call" if scalar else f"{name}({arguments}) pgrst_call"

    parameters: list[Any]
    if called.parameters and not called.parameters[0].name:
        source, parameters = f"FROM {call('%s::' + called.parameters[0].type)}", [text]
    elif not given:
        source, parameters = f"FROM {call('')}", []
    elif method != "POST":
        values = json.loads(text)
        arguments = ", ".join(f'"{each.name}" := %s::{each.type}' for each in given)
        source, parameters = f"FROM {call(arguments)}", [str(values[each.name]) for each in given]
    else:
        # Query/SqlFragment.hs, `fromJsonBodyF`.
        columns = ", ".join(f'"{each.name}"' for each in given)
        typed = ", ".join(f'"{each.name}" {each.type}' for each in given)
        arguments = ", ".join(f'"{each.name}" := pgrst_body."{each.name}"' for each in given)
        source = (
            "FROM (SELECT %s AS json_data) pgrst_payload, "
            f"LATERAL (SELECT {columns} FROM json_to_record(pgrst_payload.json_data) AS _({typed}) LIMIT 1) "
            f"pgrst_body , LATERAL {call(arguments)}"
        )
        parameters = [Json(text, dumps=str.encode)]
    selected = "pgrst_call.pgrst_scalar" if scalar else '"pgrst_call".*'
    body = "json_agg(_postgrest_t.pgrst_scalar)->0" if scalar else "json_agg(_postgrest_t)->0"
    statement = (
        f"WITH pgrst_source AS (SELECT {selected} {source}) "
        "SELECT null::bigint AS total_result_set, 1 AS page_total, "
        f"coalesce({body}, 'null')::text AS body, "
        "nullif(current_setting('response.headers', true), '') AS response_headers, "
        "nullif(current_setting('response.status', true), '') AS response_status, "
        "'' AS response_inserted "
        'FROM (SELECT "pgrst_source".* FROM "pgrst_source"   ) _postgrest_t'
    )
    return statement, parameters


STATUSES = {
    **{"08": 503, "09": 500, "0L": 403, "0P": 403, "25": 500, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500},
    **{"40": 500, "53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "F0": 500, "HV": 500, "P0": 500, "XX": 500},
    **{"23503": 409, "23505": 409, "25006": 405, "21000": 500, "53400": 500, "57P01": 503, "P0001": 400},
    **{"42883": 404, "42P01": 404, "42P17": 500},
}
"""Error.hs, `mapSQLtoHTTP`, by SQLSTATE or class."""


def _status(error: psycopg.Error, *, is_anonymous: bool) -> int:
    sqlstate = error.sqlstate or "08000"
    if sqlstate == "42501":
        return 401 if is_anonymous else 403
    if sqlstate.startswith("PT"):
        return int(sqlstate[2:])
    return STATUSES.get(sqlstate) or STATUSES.get(sqlstate[:2]) or 400
