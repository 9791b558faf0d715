"""The HTTP API: one file a noun, one error envelope, one table of routes.

How to add a noun. Write `loopd/api/NOUN.py` with one class whose constructor takes the services it needs and whose
`routes()` gives its table:

    class MaterialRoutes:
        def __init__(self, registry: Registry, write: Write) -> None: ...

        def routes(self) -> list[Route]:
            return [
                Route(
                    method="POST",
                    path="/api/v1/material",
                    handler=self._register,
                    noun="Materials",
                    summary="Register a material",
                    access=Scope.MATERIAL_WRITE,
                    body=Body.REQUIRED,
                    request_schema="MaterialDNA",
                    successes={201: Success(description="...", schema="MaterialDNA", content_type=LD_JSON)},
                    refusals={400: ("personal_data",), 409: ("other_content",)},
                ),
            ]

        async def _register(self, request: Request) -> Answer:
            document = check_document(request.body, "MaterialDNA")

            def unit(tx: Tx) -> Answer:
                record, created = self._registry.register(tx, document)
                return entity_answer(..., 201 if created else 200, {"Location": f"/api/v1/material/{record.id}"})

            return await self._write(request, unit)

- When a handler runs, the framework has checked everything that `Route` declares: limits, token scope or node
  signature (`request.node`), content type and size of the body, path ids (decoded text), and the query: `request.limit`
  where the route declares `LIMIT`, `request.text(name)` and `request.integer(name)` else.
- A handler raises `Refusal`s and lets bugs escape; both are answered in the envelope of §8.3. Its own reasons belong
  into `refusals`, for the description and the documentation are made from it.
- Every effect goes through `write` (`loopd.api.idempotency.Write`), which runs the unit once for each Idempotency-Key
  and answers after the commit. A POST whose effect is no unit of work must be harmless to repeat. A unit that refuses
  raises: it is rolled back, and nothing is stored for the key.
- Reads by key use `database.point`, lists `database.all` or a snapshot.
- A route under `/admin/` sets `admin=True`, and `access=Scope.ADMIN` or a lesser scope.
- An answer that streams is an aiohttp `StreamResponse` over `request.http`.

The composition root gathers the routes of all nouns and builds one `App` for each plane:

    app = build_app(routes, Plane.PUBLIC, services)
    await app.listen_tcp(host, port, ssl_context)
"""
