"""LiteRT files: conversion, quantisation, metadata and audit. Knows files only, no Keras model of its own."""
