# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --upgrade --constraint constraints.txt pip
COPY alembic ./alembic
COPY botfarm_server ./botfarm_server
COPY pytest_botfarm ./pytest_botfarm
RUN pip wheel --no-cache-dir --no-deps --build-constraint constraints.txt \
        --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/botfarm \
    && pip --python /opt/botfarm/bin/python install --no-cache-dir \
        --constraint constraints.txt "$(echo /wheels/*.whl)[server]"


FROM python:3.13-slim
COPY --from=build /opt/botfarm /opt/botfarm
RUN useradd --system --uid 10001 --user-group --no-create-home botfarm \
    && install --directory --owner=botfarm --group=botfarm /data
ENV PATH="/opt/botfarm/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    BOTFARM_PORT=8000
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
# Where a SQLite file lands if no DATABASE_URL names another place.
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"BOTFARM_PORT\"]}/health', timeout=4)"]
ENTRYPOINT ["botfarm"]
CMD ["serve", "--host", "0.0.0.0"]
