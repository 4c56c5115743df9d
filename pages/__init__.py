"""The screens: query, pure figure, render. No SQL, no mathematics."""
