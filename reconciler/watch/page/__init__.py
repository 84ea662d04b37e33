"""The page of `watch --ui`: what `status -o json` has, live and read-only. Only this imports uvicorn, its server."""
