"""Filters without training: block matching against noise, blur undone, bias field measured."""
