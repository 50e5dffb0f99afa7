"""The way in for whoever never opens psql: a gateway over HTTP.

`postrust` is one that runs in the tests. `postgrest` is PostgREST, which no package manager of
ours has, at its seam: exactly what it sends to Postgres, and what it makes of the answers. Where
the two differ, PostgREST counts. `client` is TypeScript: the example for app developers, and what
it is put through.
"""

EXPOSED = """
create schema api;
grant usage on schema api to anon, authenticated, service_role;
select payments.grant_webhook('anon');
select payments.expose('api');
"""
"""The schema that a gateway serves, set up as documented, on top of an app that has been granted."""
